"""Settings of the training itself."""

from dataclasses import dataclass
from typing import Literal

from fr_ps.config.checks import MAX_BATCH, MAX_PROCESSES, MAX_SEED, MAX_STEPS, MAX_WEIGHT, check_range, check_setting, check_types


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer.

    Args:
        name: adamw, or sgd with Nesterov momentum.
        lr: largest learning rate, reached at the end of the warm-up.
        weight_decay: of weights; norms, biases, gains and loss weights have none.
        momentum: of sgd.
        clip: largest norm of the gradient of a step; 0 for no limit.
        weighting_factor: learning rate of the learnt loss weights as a multiple of lr. They start at 1 and have to reach
            1 / (2 loss), and Adam moves a parameter by at most about lr a step.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    clip: float = 5.0
    weighting_factor: float = 50.0

    def __post_init__(self) -> None:
        check_types(self, "optim.")
        check_setting(0 < self.lr <= 1000, "optim.lr", self.lr, "above 0, at most 1000")
        check_range(self, "optim.", 0, MAX_WEIGHT, "weight_decay", "clip")
        check_setting(0 <= self.momentum < 1, "optim.momentum", self.momentum, "0 or more and below 1")
        good = 0 < self.weighting_factor <= MAX_WEIGHT
        check_setting(good, "optim.weighting_factor", self.weighting_factor, f"above 0, at most {MAX_WEIGHT:g}")


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the steps of a training.

    All begin with a linear warm-up to optim.lr. Steps are those of the optimizer.

    Args:
        name: polynomial: lr x (1 - progress)^power; cosine: half a cosine down to the lowest rate, with or without warm
            restarts; constant.
        warmup_epochs: epochs of the warm-up; may be a fraction. Longer than the training, it keeps the rate below optim.lr.
        power: of the polynomial decay.
        restart_epochs: of the cosine, epochs of its first cycle (T_0 of SGDR), after each of which it restarts at lr; may be
            a fraction; 0: one cycle over all that is left after the warm-up.
        restart_factor: each cycle's length as a multiple of the one before (T_mult).
        lowest: learning rate at the end of a cycle of the cosine (eta_min), at most optim.lr.
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
    """The training itself.

    Args:
        epochs: at most.
        seed: of weights, batches and augmentation.
        select: validation metric of the best checkpoint; higher is better, except for an eer or ece.
        watch: further validation metrics, each with a checkpoint of its own best epoch, `checkpoints/best_...`.
        patience: stop after this many epochs without a better train.select; 0: never.
        accumulate: batches a step of the optimizer, whose gradient is that of their mean loss; norms see each batch alone.
        ema: decay a step of the moving average of the weights, as 0.999; where there is one, it is what is validated, saved
            and tested. It is smaller over the first steps. 0: none.
        threads: CPU threads of torch; 0: as many as torch takes by itself.
        scoring_batch: sessions a batch where a model is scored.
        checkpoint_steps: steps after which a checkpoint to resume from is written within an epoch; 0: by time only. At the
            end of an epoch there always is one.
        checkpoint_minutes: minutes after which such a checkpoint is written; 0: never by time.
        bad_steps: the training stops after so many steps in a row whose loss or gradient was NaN or infinite; each of them
            is skipped.
        system_metrics: record processor, memory, disk, network and GPUs of the machine, as MLflow's `system/...` metrics;
            also on where MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is true.
    """

    epochs: int = 20
    seed: int = 0
    select: str = "val/identity/auc"
    patience: int = 0
    accumulate: int = 1
    ema: float = 0.0
    threads: int = 0
    scoring_batch: int = 64
    watch: tuple[str, ...] = ()
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    bad_steps: int = 10
    system_metrics: bool = False

    def __post_init__(self) -> None:
        check_types(self, "train.")
        check_range(self, "train.", 1, MAX_STEPS, "epochs", "bad_steps")
        check_range(self, "train.", 1, MAX_BATCH, "accumulate", "scoring_batch")
        check_range(self, "train.", 0, MAX_SEED, "seed")
        check_range(self, "train.", 0, MAX_STEPS, "patience", "checkpoint_steps", "checkpoint_minutes")
        check_range(self, "train.", 0, MAX_PROCESSES, "threads")
        check_setting(self.select.startswith("val/"), "train.select", self.select, "a metric under val/, as val/identity/auc")
        for metric in self.watch:
            check_setting(metric.startswith("val/"), "train.watch", metric, "metrics under val/, as val/identity/eer")
        check_setting(0 <= self.ema < 1, "train.ema", self.ema, "0 or more and below 1")
