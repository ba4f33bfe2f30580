"""Linear classifiers of the attributes on the features of a linear embedding."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LinearAttributes(nn.Module):
    """(B, D) `attribute_features` of a `LinearEmbedding` to the logits of each attribute.

    Args:
        width: D.
        classes: attribute to its number of classes.
    """

    def __init__(self, width: int, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.tasks = tuple(classes)
        for task, count in classes.items():
            self.register_buffer(task, torch.zeros(width + 1, count))

    def set_weights(self, task: str, weights: Tensor) -> None:
        """Set the (D + 1, classes) weights of an attribute, the last row being the bias."""
        self.get_buffer(task).copy_(weights)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Attribute to (B, classes) logits; 0 before the fit."""
        return {task: features @ self.get_buffer(task)[:-1] + self.get_buffer(task)[-1] for task in self.tasks}

    def is_fitted(self) -> dict[str, Tensor]:
        """Attribute to 1 if its classifier is fitted, else 0; scalars."""
        weights = {task: self.get_buffer(task) for task in self.tasks}
        return {task: (of_task.abs().sum() > 0).to(of_task.dtype) for task, of_task in weights.items()}
