"""Whether a training diverged although all its numbers stayed finite."""

from collections.abc import Mapping, Sequence

MAX_LOSS_RATIO = 1.5
"""By how much the losses have to exceed those of the first epoch: more than the noise of batches and augmentation."""
_WINDOW = 3


def divergence_warning(curves: Mapping[str, Mapping[int, float]], attributes: Sequence[str]) -> str:
    """One line where the losses grew; empty where they did not, or where there are too few epochs to compare.

    Compared is the plain sum of the losses of identity and `attributes`, so that weights which are learnt or change do not
    matter, and adversaries, whose losses are meant to grow, do not either: the mean over the last epochs, up to three and at
    most half of all, with the first epoch.

    Args:
        curves: metric to epoch to value, with `train/loss/...` of each task.
        attributes: that are trained.
    """
    losses = [curves.get(f"train/loss/{task}", {}) for task in ("identity", *attributes)]
    epochs = sorted(set.intersection(*(set(one) for one in losses)))
    last = epochs[len(epochs) - min(_WINDOW, len(epochs) // 2) :]
    if not last:
        return ""
    start = sum(one[epochs[0]] for one in losses)
    end = sum(one[epoch] for one in losses for epoch in last) / len(last)
    if end <= MAX_LOSS_RATIO * start:
        return ""
    return (
        f"the training diverged: the sum of the task losses rose from {start:.3g} in epoch {epochs[0]} to {end:.3g} "
        f"at the end (mean of {len(last)} epochs); lower optim.lr"
    )
