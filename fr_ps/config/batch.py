"""Settings of the training batches."""

from dataclasses import dataclass
from typing import Literal

from fr_ps.config.checks import MAX_BATCH, check_range, check_setting, check_types
from fr_ps.config.names import Attribute


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training batch, the same geometry for all maps of a session.

    Args:
        flip: probability of a horizontal flip.
        crop: smallest side of the random square crop, as a share of the picture's; 1 for none.
        rotation: largest rotation in degrees, either way.
        noise: largest standard deviation of the Gaussian noise on a random patch of 10 to 25 % of the picture, as a
            share of the map's root mean square; 0 for none.
    """

    flip: float = 0.5
    crop: float = 0.9
    rotation: float = 5.0
    noise: float = 0.1

    def __post_init__(self) -> None:
        check_types(self, "augment.")
        check_setting(0 <= self.flip <= 1, "augment.flip", self.flip, "a probability from 0 to 1")
        check_setting(0.1 <= self.crop <= 1, "augment.crop", self.crop, "a share from 0.1 to 1")
        check_setting(0 <= self.rotation <= 180, "augment.rotation", self.rotation, "degrees from 0 to 180")
        check_range(self, "augment.", 0, 10, "noise")


@dataclass(frozen=True)
class BatchConfig:
    """P x K batches: P people with K sessions each.

    Args:
        people: P; where there are fewer people to train on, all of them.
        sessions: K; a person with fewer has some twice in the batch, augmented differently.
        balance: identity: people take turns, however many sessions they have; class: the classes of `attribute` take the
            P places in turn, and their people those of their class; none: every session once an epoch in random order,
            P x K a batch, the last one filled up with sessions of earlier ones.
        attribute: whose classes are balanced, where balance is class; sessions without a label of it get as large a share
            of the places as they are of the sessions. The class weights of the losses stay those of the table;
            loss.class_weights, as {gender: [0.5, 0.5]}, keeps them from correcting it a second time.
    """

    people: int = 8
    sessions: int = 4
    balance: Literal["identity", "class", "none"] = "identity"
    attribute: Attribute = "gender"

    def __post_init__(self) -> None:
        check_types(self, "batch.")
        check_range(self, "batch.", 1, MAX_BATCH, "people", "sessions")
        size = self.people * self.sessions
        check_setting(size >= 2, "batch.people", self.people, "a batch of 2 or more: BN needs variance")
        check_setting(size <= MAX_BATCH, "batch.people", self.people, f"a batch (people x sessions) of {MAX_BATCH} or fewer")
