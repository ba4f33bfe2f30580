"""One training step in each of several processes, which test_distributed.py starts. Writes gradients, buffers and predictions.

Arguments: a prepared data set, a folder for the files, and names of task weightings; after `sampled`, with sampled centres.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from fr_ps.config import AugmentConfig, BatchConfig
from fr_ps.distributed import gather_objects, process_group, rank
from fr_ps.evaluation.evaluate_model import predict_rows
from fr_ps.training.trainer import Trainer
from tests.training.runs import make_config, make_trainer


def gradients(prepared: Path, name: str) -> dict[str, torch.Tensor]:
    """Name to gradient of every parameter after one step of a training with batch norms, and the buffers of the network.

    Also the `predictions` before the step.
    """
    loss: dict[str, Any] = {"contrastive": 0.5, "identity_loss": "adaface"}
    sampled = name.startswith("sampled ")
    loss |= {"weighting": name.removeprefix("sampled "), "sampled_subject_share": 0.5 if sampled else 1.0}
    config = make_config(prepared, loss=loss)
    # A sample has at least as many centres as there are sessions in the batch; the data set has 6 subjects.
    batch = BatchConfig(people=2 if sampled else 4, sessions=2, steps=2)
    trainer = make_trainer(replace(config, augment=AugmentConfig(noise=0.3, erase=0.5), batch=batch))
    found = predictions(trainer)

    def record() -> None:
        for prefix, module in (("network", trainer.state.network), ("losses", trainer.state.losses)):
            named = module.named_parameters()
            found.update({f"{prefix}.{name}": one.grad.clone() for name, one in named if one.grad is not None})
        if trainer.state.losses.sharded:
            found["losses.identity.weight"] = torch.cat(gather_objects(found["losses.identity.weight"]))

    trainer.state.optimizer.step = record  # type: ignore[method-assign,assignment]
    trainer.state.network.train()
    trainer.train_step(trainer.loader.stream(trainer.loader.epoch_indices(0), 0), range(1))
    return found | {f"buffer.{name}": buffer.float() for name, buffer in trainer.state.network.named_buffers()}


def predictions(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What the end of a training predicts of its test part: here five sessions in batches of two, and a gallery of one."""
    rows = np.array([5, 0, 3, 2, 7])
    predicted = predict_rows(trainer.state.network, ["gender"], trainer.setup.dataset, rows, rows[:1], batch=2)
    assert predicted.gallery is not None
    found = predicted.predictions.probabilities | {"embeddings": predicted.predictions.embeddings}
    found |= {"gallery": predicted.gallery.embeddings}
    return {f"predictions.{name}": torch.from_numpy(values) for name, values in found.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with process_group():
        for name in sys.argv[3:]:
            save_file(gradients(Path(sys.argv[1]), name), Path(sys.argv[2]) / f"{name}-{rank()}.safetensors")
