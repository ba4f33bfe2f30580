"""Fusion of several modalities: of their embeddings, or of their class probabilities.

Every module takes a list of embeddings, one per branch in the order of the network, with zeros for unused ones, and the mask
`used` (B, branches), with at least one True per row.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fr_ps.models.layers import reduction_layer


class Concatenation(nn.Module):
    """(B, sum of widths): concatenated, as in the original project. With one branch: its embedding."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.width = sum(widths)

    def forward(self, embeddings: Sequence[Tensor], used: Tensor) -> Tensor:
        return torch.cat(list(embeddings), dim=1)


class FullyConnected(nn.Module):
    """(B, channels): concatenated, then FC, BN, PReLU, as in the original project."""

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.width = channels
        self.reduce = reduction_layer(sum(widths), channels)

    def forward(self, embeddings: Sequence[Tensor], used: Tensor) -> Tensor:
        return self.reduce(torch.cat(list(embeddings), dim=1))


class GatedAttention(nn.Module):
    """(B, channels): sum_m a_m h_m with h_m = W_m e_m.

    a is the softmax, over the used branches, of the scores w . (tanh(V h_m) * sigmoid(U h_m)).

    The gated attention of Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018, over
    modalities instead of instances. W_m aligns the modalities; it is initialised orthogonal, which preserves norms.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.width = channels
        hidden = max(1, channels // 4)
        self.align = nn.ModuleList(nn.Linear(width, channels, bias=False) for width in widths)
        for linear in self.align:
            nn.init.orthogonal_(linear.weight)  # type: ignore[arg-type]
        self.tanh, self.gate = nn.Linear(channels, hidden), nn.Linear(channels, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, embeddings: Sequence[Tensor], used: Tensor) -> Tensor:
        aligned = torch.stack([linear(embedding) for linear, embedding in zip(self.align, embeddings)], dim=1)
        return (self.attention(aligned, used)[:, :, None] * aligned).sum(dim=1)

    def attention(self, aligned: Tensor, used: Tensor) -> Tensor:
        """(B, branches) attention weights a of (B, branches, channels) h; 0 for an unused branch."""
        scores = self.score(torch.tanh(self.tanh(aligned)) * torch.sigmoid(self.gate(aligned)))[:, :, 0]
        return scores.masked_fill(~used, -math.inf).softmax(dim=1)


class ScoreFusion(nn.Module):
    """(B, sum of widths): late fusion. The cosine of two outputs is the mean of the cosines of the branches.

    The embeddings are normalised and concatenated. The norm of the output is the mean norm of the embeddings of the used
    branches. With missing maps, the cosine is the mean over the used branches if both outputs use the same ones.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.width = sum(widths)

    def forward(self, embeddings: Sequence[Tensor], used: Tensor) -> Tensor:
        count = used.sum(dim=1, keepdim=True)
        norm = torch.stack([embedding.norm(dim=1) for embedding in embeddings], dim=1).sum(dim=1, keepdim=True) / count
        return torch.cat([functional.normalize(embedding) for embedding in embeddings], dim=1) * norm / count.sqrt()


FUSIONS: dict[str, Callable[[Sequence[int], int], nn.Module]] = {
    "concat": Concatenation,
    "fc": FullyConnected,
    "gated": GatedAttention,
    "score": ScoreFusion,
}
"""Name to a constructor, which takes (branch widths, channels of the fusion) and returns a module with the attribute `width`."""


class ClassHead(nn.Module):
    """Embeddings of the branches to (B, classes) logits of an attribute: fused, then one linear layer."""

    def __init__(self, fusion: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.fusion = fusion
        self.linear = nn.Linear(width, classes)

    def forward(self, embeddings: Sequence[Tensor], used: Tensor) -> Tensor:
        return self.linear(self.fusion(embeddings, used))


class ProbabilityFusionHead(nn.Module):
    """Embeddings of the branches to (B, classes) logits: the log of the mean of the branches' own probabilities."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(width, classes) for width in widths)

    def forward(self, embeddings: Sequence[Tensor], used: Tensor) -> Tensor:
        logits = [linear(embedding) for linear, embedding in zip(self.linears, embeddings)]
        logs = torch.stack([of_one.float().log_softmax(dim=1) for of_one in logits], dim=1)  # (B, branches, classes)
        unused = ~used[:, :, None]
        return logs.masked_fill(unused, -math.inf).logsumexp(dim=1) - used.sum(dim=1, keepdim=True).log()


def build_class_head(fusion: str, widths: Sequence[int], channels: int, classes: int) -> nn.Module:
    """The head of an attribute with embeddings of `widths`, for the fusion named `fusion`."""
    if fusion == "score":
        return ProbabilityFusionHead(widths, classes)
    module = FUSIONS[fusion](widths, channels)
    return ClassHead(module, module.width, classes)  # type: ignore[arg-type]
