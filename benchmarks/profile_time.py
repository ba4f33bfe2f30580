"""Where the time goes: a training step, an epoch, a whole training, an evaluation, a search trial and a request.

For each backbone, on built-in faces and the CPU. The time of a function includes that of the functions that it calls, from
cProfile in the thread that does the work; `rest` is what the listed functions leave. The kinds of operation of a step are from
torch.profiler. The training has few, short epochs, so that what happens once weighs more in it than in a real one: read the
seconds there, not the shares.

    python benchmarks/profile_time.py
"""

import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common import argument_parser, limit_threads, make_trainer, report
from search_overhead import make_spec, silence

Functions = Mapping[str, tuple[str, str]]
"""Label to the end of the file name and the name of a function."""
STEP: Functions = {
    "batch": ("batch_loader.py", "load"),
    "forward": ("trainer.py", "_forward"),
    "losses": ("multitask.py", "forward"),
    "backward": ("_tensor.py", "backward"),
    "gradient norm": ("sharded_centres.py", "total_grad_norm"),
    "clipping": ("clip_grad.py", "_clip_grads_with_norm_"),
    "optimizer": ("divergence.py", "step"),
}
EPOCH: Functions = {
    "steps": ("trainer.py", "train_epoch"),
    "validation": ("trainer.py", "validate"),
    "logging, checkpoint copy": ("trainer.py", "end_epoch"),
}
TRAIN: Functions = {
    "open data, split": ("setup.py", "build_setup"),
    "network": ("build_model.py", "build_model"),
    "epochs": ("trainer.py", "train"),
    "test": ("finalize.py", "evaluate_best"),
    "figures, report, cards": ("finalize.py", "log_artifacts"),
}
EVALUATE: Functions = {
    "load model": ("folder.py", "load_model"),
    "open data": ("inputs.py", "open_model_dataset"),
    "predict": ("modality_subsets.py", "predict_with_subsets"),
    "metrics, intervals": ("evaluate_predictions.py", "evaluate_predictions"),
    "report": ("report.py", "write_report"),
    "logging": ("evaluate_model.py", "log_report"),
}
TRIAL: Functions = {
    "open data, split": ("setup.py", "build_setup"),
    "network": ("build_model.py", "build_model"),
    "epochs": ("trainer.py", "train"),
    "study's database": ("storage.py", "with_database_retries"),
}
REQUEST: Functions = {"read maps": ("request.py", "_parse_rows"), "forward": ("request.py", "_predict")}
"""The stages of each task."""


@dataclass
class Profiled:
    """Seconds of a task, how often it ran in them, and the seconds of its stages."""

    seconds: float
    calls: int = 1
    stages: dict[str, float] = field(default_factory=dict)

    def row(self, backbone: str, task: str) -> list[object]:
        """A row of the table: seconds a call, and the share of each stage."""
        stages = self.stages | {"rest": self.seconds - sum(self.stages.values())}
        shares = ", ".join(f"{name} {100 * of_it / self.seconds:.0f} %" for name, of_it in stages.items())
        return [backbone, task, self.seconds / self.calls, shares]


class Profile:
    """Seconds of functions, from cProfile."""

    def __init__(self) -> None:
        self._profile = cProfile.Profile()
        self.seconds = 0.0

    @contextmanager
    def record(self) -> Iterator[None]:
        begun = time.perf_counter()
        with self._profile:
            yield
        self.seconds = time.perf_counter() - begun

    def of(self, file: str, function: str) -> tuple[float, int]:
        """Seconds and calls of a function."""
        stats = pstats.Stats(self._profile).stats  # type: ignore[attr-defined]
        found = [values for (path, _, name), values in stats.items() if name == function and Path(path).name == file]
        return sum(values[3] for values in found), sum(values[1] for values in found)

    def task(self, functions: Functions, within: tuple[str, str] | None = None) -> Profiled:
        """The stages of the whole, or of the function `within`."""
        seconds, calls = self.of(*within) if within else (self.seconds, 1)
        return Profiled(seconds, max(calls, 1), {name: self.of(*function)[0] for name, function in functions.items()})


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["miresnet18", "miresnet50", "convnextv2_atto"])
    parser.add_argument("--people", type=int, default=12, help="built-in subjects, with 4 sessions each")
    parser.add_argument("--size", type=int, default=112, help="side of the maps")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    limit_threads(options.threads)
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name, chdir(name):
        os.environ["FR_PS_CACHE"] = f"{name}/cache"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{name}/mlflow.db"
        for backbone in options.backbones:
            rows += profile_backbone(backbone, Path(name) / backbone.replace(":", "_"), options)
    report({}, rows, ["backbone", "task", "s", "share of it"], options.json)


def profile_backbone(backbone: str, folder: Path, options: Any) -> list[list[object]]:
    """The rows of one backbone."""
    import torch

    from fr_ps.config import BatchConfig, Config, ModelConfig, SyntheticConfig, TrainConfig
    from fr_ps.tracking.lifecycle import start_run
    from fr_ps.training.train import train

    torch.set_num_threads(options.threads)
    config = Config(
        model=ModelConfig(backbone=backbone),
        synthetic=SyntheticConfig(people=options.people, sessions=4, size=options.size),
        batch=BatchConfig(people=4, sessions=4, steps=3),
        train=TrainConfig(epochs=options.epochs),
    )
    config = replace(config, data=replace(config.data, val_people=2, test_people=2))
    warm = replace(config, model=replace(config.model, backbone="timm:test_resnet"))
    with silence():
        with start_run("warm-up", folder / "runs") as run:
            train(warm, run)  # imports, and the faces
        training = Profile()
        with start_run(backbone, folder / "runs") as run, training.record():
            train(config, run)
        evaluation = profile_evaluation(run.folder, config, folder)
        request = profile_requests(run.folder, config)
        trial = profile_trial(config, folder)
        operations = profile_operations(config)
    step, epoch = training.task(STEP, ("trainer.py", "train_step")), training.task(EPOCH, ("trainer.py", "train"))
    epoch.calls = config.train.epochs
    tasks = {
        "step": step,
        "step, by operation": operations,
        "epoch of 3 steps": epoch,
        f"train, {config.train.epochs} epochs": training.task(TRAIN),
        "evaluate": evaluation,
        "search trial": trial,
        "request of one session": request,
    }
    return [task.row(backbone, name) for name, task in tasks.items()]


def profile_operations(config: Any) -> Profiled:
    """The kinds of operation of a step."""
    from torch.profiler import ProfilerActivity, profile

    trainer = make_trainer(config, config.synthetic.people * config.synthetic.sessions)
    trainer.train_epoch()
    trainer.state.reset_epoch()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        trainer.train_epoch()
    kinds = {"convolution": ("conv",), "norm": ("norm",), "matrix product": ("mm", "linear"), "optimizer": ("adam",)}
    found = dict.fromkeys(kinds, 0.0)
    total = 0.0
    for event in profiler.key_averages():
        seconds = event.self_cpu_time_total / 1e6
        total += seconds
        kind = next((kind for kind, words in kinds.items() if any(word in event.key.lower() for word in words)), None)
        if kind:
            found[kind] += seconds
    return Profiled(total, config.batch.steps, found)


def profile_evaluation(run: Path, config: Any, folder: Path) -> Profiled:
    """`evaluate` on all rows of the data of the training."""
    import torch

    from fr_ps.data.builtin import resolve_root
    from fr_ps.evaluation.evaluate_model import evaluate_model
    from fr_ps.evaluation.inputs import EvaluationOptions, open_inputs
    from fr_ps.tracking.lifecycle import start_run
    from fr_ps.tracking.run_folder import BEST_CHECKPOINT

    data, profiled = resolve_root("synthetic", config.synthetic), Profile()
    with start_run("evaluation", folder / "runs") as tracking, profiled.record():
        inputs = open_inputs(run / BEST_CHECKPOINT, data, EvaluationOptions(), torch.device("cpu"))
        evaluate_model(inputs, folder / "out", tracking, batch=64)
    return profiled.task(EVALUATE)


def profile_requests(run: Path, config: Any, requests: int = 8) -> Profiled:
    """Requests of one session to the MLflow model, without HTTP."""
    import mlflow
    import numpy as np
    import pandas

    from fr_ps.serving.mlflow_model import save_pyfunc_model
    from fr_ps.tracking.run_folder import BEST_CHECKPOINT

    save_pyfunc_model(run / BEST_CHECKPOINT, run / "pyfunc")
    model = mlflow.pyfunc.load_model(str(run / "pyfunc"))
    size = config.synthetic.size
    frame = pandas.DataFrame([{"albedo": np.full((size, size), 0.5, np.float32)}])
    model.predict(frame)
    profiled = Profile()
    with profiled.record():
        for _ in range(requests):
            model.predict(frame)
    task = profiled.task(REQUEST)
    task.calls = requests
    return task


def profile_trial(config: Any, folder: Path) -> Profiled:
    """One trial of a study, in this process."""
    from fr_ps.config import to_dict
    from fr_ps.search.storage import Storage, open_study
    from fr_ps.search.worker import run_worker
    from fr_ps.tracking.lifecycle import create_parent_run

    settings = to_dict(config)
    groups = {name: settings[name] for name in ("synthetic", "model", "batch", "train")}
    spec = make_spec(folder, "trial", budget={"trials": 1}, **groups)
    study = spec.config.study
    open_study(Storage(study.storage, study.heartbeat), study.name, ["maximize"])
    _, parent = create_parent_run(study.name, folder / "runs")
    profiled = Profile()
    with profiled.record():
        run_worker(spec, parent, time.time(), folder / "runs")
    return profiled.task(TRIAL, ("trial.py", "run_trial"))


if __name__ == "__main__":
    main()
