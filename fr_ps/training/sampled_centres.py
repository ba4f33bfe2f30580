"""Partial FC: a training step with the centres of its subjects and of a random sample of the others.

An et al., "Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by Partial FC", CVPR 2022,
arXiv:2203.15565.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from fr_ps.losses.margin import MarginLoss


@contextmanager
def sampled_centres(
    losses: Sequence[MarginLoss], optimizer: torch.optim.Optimizer, subjects: Tensor, share: float, seed: int
) -> Iterator[None]:
    """Within the context, the `weight` of each loss, which holds its class centres, has only the rows of a sample of subjects.

    The sample is from `sample_subjects`. Gradients and optimizer state of the weights have only these rows, too, so that logits,
    gradient and update take time and memory for the sampled centres only. On leaving, the updated rows are written back. Weights
    and optimizer then hold all centres, as in a training without sampling, and a checkpoint does not depend on the share.

    A centre that is not sampled keeps its value and its moments: no weight decay, no momentum. A dense gradient with zero rows
    would make AdamW move every centre in every step. As in the paper's code:

    - The cross-entropy over the sample is not corrected for the subjects that it lacks.
    - AdamW's bias correction counts all steps, not those in which a centre was sampled; so the first updates of a rarely sampled
      centre are larger, up to (1 - beta1) / sqrt(1 - beta2) = 3.2 times the learning rate.

    As in the paper, each of several processes holds a part of the centres (`MarginLoss.part`). Unlike in the paper, all processes
    draw the same sample of all subjects, and each takes its part of it. So the sample does not depend on the number of processes,
    except that a process whose part has no sampled subject adds the first one of its part. A step that accumulates several
    batches has one sample.

    Do not enter the context while an autograd graph that was built before is still needed: that graph has recorded the shape of
    the weights with all centres.

    Args:
        losses: the identity losses, all with the same number of subjects.
        optimizer: of the weights of `losses`.
        subjects: (B,) targets of all batches of the step.
        share: the part of all subjects that is sampled, above 0 and at most 1.
        seed: of the sample; equal in all processes.
    """
    sampled, part = sample_subjects(losses[0].num_subjects, subjects, share, seed), losses[0].part
    if part is not None:
        sampled = _within(sampled, part)
    with ExitStack() as stack:
        for loss in losses:
            stack.enter_context(_rows_only(loss, optimizer, sampled))
        yield


def sample_subjects(num_subjects: int, subjects: Tensor, share: float, seed: int) -> Tensor:
    """The indices of the given `subjects` and of uniformly drawn others, ascending, on the device of `subjects`.

    Their count is `share` of `num_subjects`, rounded up, or B if that is larger, and at most `num_subjects`. The result
    depends only on the arguments and on the kind of device; nothing waits for a GPU.

    Args:
        num_subjects: number of subjects.
        subjects: (B,) subjects, with repetitions.
        share: above 0, at most 1.
        seed: of the draw.
    """
    count = min(num_subjects, max(math.ceil(share * num_subjects), len(subjects)))
    generator = torch.Generator(subjects.device).manual_seed(seed)
    priority = torch.rand(num_subjects, generator=generator, device=subjects.device)  # below 1
    priority.index_fill_(0, subjects, 1.0)
    return priority.topk(count, sorted=False).indices.sort().values


def _within(sampled: Tensor, part: range) -> Tensor:
    """The subjects of a sample that are in `part`; if there is none, the first one of `part`. Waits for the device."""
    own = sampled[(sampled >= part.start) & (sampled < part.stop)]
    return own if len(own) else sampled.new_tensor([part.start])


@contextmanager
def _rows_only(loss: MarginLoss, optimizer: torch.optim.Optimizer, sampled: Tensor) -> Iterator[None]:
    """Within the context, the class centres `loss.weight`, and their moments in the optimizer, have only the `sampled` rows."""
    weight = loss.weight
    rows = sampled if loss.part is None else sampled - loss.part.start
    all_centres = weight.data
    all_moments = {name: value for name, value in optimizer.state.get(weight, {}).items() if _has_rows(value)}
    # `.data`, because the optimizer refers to this very parameter.
    weight.data, loss.sampled = all_centres[rows], sampled
    for name, value in all_moments.items():
        optimizer.state[weight][name] = value[rows]
    try:
        yield
        # Only if the block raised no error: write the updated rows back.
        all_centres.index_copy_(0, rows, weight.data)
        for name, value in optimizer.state.get(weight, {}).items():
            if not _has_rows(value):
                continue
            if name not in all_moments:  # AdamW creates its moments, of zeros, in the first step
                all_moments[name] = torch.zeros_like(all_centres)
            all_moments[name].index_copy_(0, rows, value)
    finally:
        weight.data, loss.sampled = all_centres, None
        weight.grad = None  # it has only the sampled rows
        if all_moments:
            optimizer.state[weight].update(all_moments)


def _has_rows(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0
