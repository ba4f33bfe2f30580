"""Supervised contrastive loss: sessions of one subject attract each other, sessions of two subjects repel each other."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def supervised_contrastive(embeddings: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """L_out of Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv:2004.11362, minus its lower bound.

    p_ij is the softmax, over all other samples j, of cos(i, j) / temperature, and P(i) are the other samples of i's subject.
    The loss of sample i is (the mean over j in P(i) of -log p_ij) - log |P(i)|, the divergence of p_i from the uniform
    distribution over P(i). The result is the mean over the samples whose P(i) is not empty. The term log |P(i)|
    has no gradient. With it the loss vanishes when the task is solved, as a weighting of tasks by their losses requires.

    Args:
        embeddings: (B, C), of any norms.
        targets: (B,) subjects. A sample without another one of its subject is only a negative of the others.
        temperature: above 0.

    Returns:
        A scalar, 0 or more; 0 if no subject has two samples.
    """
    with torch.autocast(embeddings.device.type, enabled=False):  # cosines over a small temperature need more than bfloat16
        unit = functional.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)))
        itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        positive = (targets[:, None] == targets) & ~itself
        log_p = (unit @ unit.T / temperature).masked_fill(itself, -math.inf).log_softmax(dim=1)
        count = positive.sum(dim=1)
        divergence = -torch.where(positive, log_p, 0.0).sum(dim=1) / count.clamp_min(1) - count.clamp_min(1).log()
        return divergence.sum() / (count > 0).sum().clamp_min(1)
