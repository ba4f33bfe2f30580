"""Settings of the optimizer, the learning rate schedule and the training loop."""

from dataclasses import dataclass
from typing import Literal

from fr_ps.config.checks import MAX_BATCH, MAX_PROCESSES, MAX_SEED, MAX_STEPS, MAX_WEIGHT, check_range, check_setting, check_types


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer.

    Args:
        name: adamw, or sgd with Nesterov momentum.
        lr: peak learning rate, reached at the end of the warm-up. Task weights that are learned (if
            loss.weighting is uncertainty) have 50 times this rate.
        weight_decay: weight decay; norms, biases, layer scales and the learned task weights have none.
        momentum: momentum of sgd.
        clip: largest gradient norm of a step; 0: no limit.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    clip: float = 5.0

    def __post_init__(self) -> None:
        check_types(self, "optim.")
        check_setting(0 < self.lr <= 1000, "optim.lr", self.lr, "above 0, at most 1000")
        check_range(self, "optim.", 0, MAX_WEIGHT, "weight_decay", "clip")
        check_setting(0 <= self.momentum < 1, "optim.momentum", self.momentum, "0 or more and below 1")


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate schedule, over the steps of the optimizer. Each schedule starts with a linear warm-up to optim.lr.

    Args:
        name: polynomial: lr x (1 - progress)^power, where progress is 0 after the warm-up and 1 at the end of the training;
            cosine: half a cosine down to `lowest`, with optional warm restarts; constant.
        warmup_epochs: length of the warm-up in epochs, which may be a fraction. A warm-up longer than the training never reaches
            optim.lr.
        power: exponent of polynomial.
        restart_epochs: length of the first cycle of cosine (T_0 of SGDR) in epochs, which may be a fraction; each cycle restarts
            at optim.lr; 0: a single cycle, from the end of the warm-up to the end of the training.
        restart_factor: length of a cycle relative to the cycle before (T_mult).
        lowest: learning rate at the end of a cycle of cosine (eta_min), at most optim.lr.
    """

    name: Literal["polynomial", "cosine", "constant"] = "polynomial"
    warmup_epochs: float = 1.0
    power: float = 1.0
    restart_epochs: float = 0.0
    restart_factor: int = 1
    lowest: float = 0.0

    def __post_init__(self) -> None:
        check_types(self, "schedule.")
        check_range(self, "schedule.", 0, MAX_STEPS, "warmup_epochs", "restart_epochs")
        check_range(self, "schedule.", 0, 1000, "lowest")
        check_setting(0 < self.power <= 100, "schedule.power", self.power, "above 0, at most 100")
        check_range(self, "schedule.", 1, 1000, "restart_factor")


@dataclass(frozen=True)
class TrainConfig:
    """The training loop.

    Args:
        epochs: largest number of epochs.
        seed: seed of weights, batches and augmentation.
        select: validation metric that selects the best checkpoint; higher is better, except for eer and ece.
        watch: further validation metrics; for each, the best epoch is also saved, as `checkpoints/best_...`.
        patience: epochs without improvement of train.select before early stopping; 0: no early stopping.
        accumulate: batches per optimizer step, with the gradient of their mean loss; batch norms see single batches.
        ema: decay per step of the exponential moving average of the weights, as 0.999, smaller in the first steps; validation,
            test and saved models use the averaged weights; 0: no average.
        threads: CPU threads of torch; 0: torch's default.
        precision: data type of most operations of the forward and backward pass: float32; bfloat16 or float16, with weights and
            losses in float32 (autocast); or auto: bfloat16 where the processor or GPU has instructions for it, float16 on an
            older GPU, else float32. Validation, test and saved models use float32.
        compile: compile the network with torch.compile; the first steps take minutes, the others are faster.
        sync_batch_norm: with several processes, compute batch norm statistics over the sessions of all processes, so that the
            result is that of one process; false: over each process's own sessions, which is faster.
        deterministic: use only reproducible algorithms on a GPU, so that two trainings with one seed, and an interrupted and
            resumed one, have identical weights. Slower. On a CPU the weights are identical without it.
        checkpoint_steps: optimizer steps between checkpoints within an epoch; 0: by time only. A checkpoint is also written at
            the end of each epoch.
        checkpoint_minutes: minutes between checkpoints within an epoch; 0: not by time.
        bad_steps: number of consecutive steps with a NaN or infinite loss or gradient after which the training stops. Such steps
            are skipped.
        system_metrics: record CPU, memory, disk, network and GPUs as MLflow's `system/...` metrics; also on if
            MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is true.
    """

    epochs: int = 20
    seed: int = 0
    select: str = "val/identity/auc"
    patience: int = 0
    accumulate: int = 1
    ema: float = 0.0
    threads: int = 0
    precision: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    compile: bool = False
    sync_batch_norm: bool = True
    deterministic: bool = False
    watch: tuple[str, ...] = ()
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    bad_steps: int = 10
    system_metrics: bool = False

    def __post_init__(self) -> None:
        check_types(self, "train.")
        check_range(self, "train.", 1, MAX_STEPS, "epochs", "bad_steps")
        check_range(self, "train.", 1, MAX_BATCH, "accumulate")
        check_range(self, "train.", 0, MAX_SEED, "seed")
        check_range(self, "train.", 0, MAX_STEPS, "patience", "checkpoint_steps", "checkpoint_minutes")
        check_range(self, "train.", 0, MAX_PROCESSES, "threads")
        check_setting(self.select.startswith("val/"), "train.select", self.select, "a metric under val/, as val/identity/auc")
        for metric in self.watch:
            check_setting(metric.startswith("val/"), "train.watch", metric, "metrics under val/, as val/identity/eer")
        check_setting(0 <= self.ema < 1, "train.ema", self.ema, "0 or more and below 1")
