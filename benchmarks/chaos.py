"""Trainings that are killed and resumed repeatedly, compared with an undisturbed one: lost and duplicate points, other weights.

One training runs undisturbed. Then the same training runs in three scenarios with `kill -9` at random moments (while it
starts, trains, validates, writes a checkpoint, delivers, tests), each time resumed by `fr-ps train --resume`:

    sqlite   with MLflow's own SQLite file
    server   with a real `mlflow server`, which is killed and restarted at random too
    absent   without a server until the end, then `fr-ps sync`

Compares the weights of the last and the best checkpoint bit for bit, and the step and value of every point of every curve in
MLflow (except the value of train/images_per_second, which is a speed). A training that is killed during its first steps may
have no checkpoint; it then restarts in the same run.

    python benchmarks/chaos.py --kills 100
"""

import os
import random
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from common import Measurement, argument_parser, report
from mlflow_server import Server

SPEED = "train/images_per_second"
SCENARIOS = ("sqlite", "server", "absent")
Curves = dict[str, list[tuple[int, float]]]


@dataclass
class RunRecord:
    """The result of a scenario.

    Attributes:
        scenario: its name.
        kills, server_kills: how often the training and the server were killed.
        runs, statuses: number and statuses of the runs in MLflow.
        curves, params: those of all runs in MLflow.
        weights: bytes of the checkpoints `last` and `best`.
    """

    scenario: str
    kills: int = 0
    server_kills: int = 0
    runs: int = 0
    statuses: list[str] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)
    weights: list[bytes] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="kills of the training with SQLite")
    parser.add_argument("--server-kills", type=int, default=10, help="kills of the server, besides those of its training")
    parser.add_argument("--other-kills", type=int, default=25, help="kills of the training with a server, and without one")
    parser.add_argument(
        "--span",
        type=float,
        default=3.0,
        help="largest number of seconds from the start of the first epoch of a process to its kill",
    )
    parser.add_argument("--epochs", type=int, default=110)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FR_PS_CACHE"] = f"{folder}/cache"
        for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
            os.environ.pop(variable, None)
        settings = {
            "synthetic": {"people": 10, "sessions": 6, "size": 48},
            "data": {"val_people": 3, "test_people": 3},
            "batch": {"people": 4, "sessions": 2},
            "model": {"channels": 16, "reduction": 8},
            "loss": {"weighting": "pcgrad", "identity_loss": "adaface"},
            "train": {"epochs": options.epochs, "ema": 0.9, "checkpoint_steps": 2, "threads": options.threads},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        print("undisturbed ...", file=sys.stderr)
        reference = run_with_kills("undisturbed", folder, 0, 0, options.span, rng)
        numbers, rows = {}, []
        for scenario in options.scenarios:
            kills = options.kills if scenario == "sqlite" else options.other_kills
            server_kills = options.server_kills if scenario == "server" else 0
            print(f"{scenario} ...", file=sys.stderr)
            record = run_with_kills(scenario, folder, kills, server_kills, options.span, rng)
            row, found = compare(record, reference, kills)
            rows.append(row)
            numbers |= found
        headers = ["", "kills", "server kills", "MLflow runs", "status", "points", "lost", "duplicate", "other values", "weights"]
        report(numbers, rows, headers, options.json)


def compare(record: RunRecord, reference: RunRecord, kills: int) -> tuple[list[object], dict[str, Measurement]]:
    """The table row and the numbers of `record`, compared with the undisturbed run."""
    points = sum(map(len, reference.curves.values()))
    lost = doubled = other = 0
    for name in reference.curves | record.curves:
        expected, found = dict(reference.curves.get(name, [])), record.curves.get(name, [])
        lost += len(expected.keys() - {step for step, _ in found})
        doubled += len(found) - len({step for step, _ in found})
        for step, value in found:
            if step not in expected or (name != SPEED and value != expected[step]):
                other += 1
                print(f"  {name} at {step}: {value!r} instead of {expected.get(step)!r}", file=sys.stderr)
    same = record.weights == reference.weights
    good_end = record.statuses == ["FINISHED"] and record.params == reference.params
    row = [record.scenario, record.kills, record.server_kills, record.runs, ", ".join(record.statuses)]
    values = {
        "kills": Measurement(record.kills, kills, "higher", "kill -9 of the training"),
        "lost": Measurement(lost, 0, "lower", f"points of {points}"),
        "doubled": Measurement(doubled, 0, "lower", f"points of {points}"),
        "other_values": Measurement(other, 0, "lower", f"points of {points}"),
        "other_weights": Measurement(0 if same else 1, 0, "lower", "1 if a bit of the last or best weights differs"),
        "other_end": Measurement(0 if good_end else 1, 0, "lower", "1 if not one FINISHED run in MLflow with the same params"),
    }
    numbers = {f"{record.scenario}_{name}": number for name, number in values.items()}
    return [*row, points, lost, doubled, other, "the same bits" if same else "OTHER BITS"], numbers


def run_with_kills(scenario: str, folder: Path, kills: int, server_kills: int, span: float, rng: random.Random) -> RunRecord:
    """A training in its own folder that is killed `kills` times and resumed; its final record in MLflow."""
    home = folder / scenario
    home.mkdir()
    record = RunRecord(scenario)
    uri = f"sqlite:///{home}/mlflow.db"
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    server = Server(home) if scenario in ("server", "absent") else None
    if server:
        environment["MLFLOW_TRACKING_URI"] = server.uri
    if scenario == "server" and server:
        server.start()
        server.wait()
    stop = threading.Event()
    killer = threading.Thread(target=_kill_server, args=(server, server_kills, record, stop, rng.random()))
    killer.start()
    arguments = ["--config", str(folder / "config.yaml")]
    while not run_until_kill(arguments, home, environment, rng, span if record.kills < kills else None):
        record.kills += 1
        if runs := sorted(home.glob("runs/*/config.yaml")):
            arguments = ["--resume", runs[0].parent.name]
        print(f"  {record.kills} kills", file=sys.stderr, flush=True)
    stop.set()
    killer.join()
    if server:
        server.start()
        server.wait()
        uri = server.store
    subprocess.run([sys.executable, "-m", "fr_ps", "sync"], cwd=home, env=environment, check=True, stdout=subprocess.DEVNULL)
    if server:
        server.stop()
    _add_mlflow_record(uri, record)
    (run,) = [file.parent for file in home.glob("runs/*/config.yaml")]
    record.weights = [(run / f"checkpoints/{name}/model.safetensors").read_bytes() for name in ("last", "best")]
    return record


def run_until_kill(arguments: list[str], home: Path, environment: dict[str, str], rng: random.Random, span: float | None) -> bool:
    """Run one process of the training; returns whether the run has ended.

    With a `span`, the process is killed within that many seconds after the start of its first epoch; one process in five is
    killed earlier, while it starts. A run that is killed during its final delivery has ended too and cannot be resumed.
    """
    command = [sys.executable, "-m", "fr_ps", "train", *arguments]
    process = subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if span is not None:
        delay = rng.uniform(0, span)
        if rng.random() < 0.2:
            delay *= 2  # the start takes some seconds
        else:
            for line in process.stdout:
                if line.startswith("test: "):  # the size of the test set, printed just before the first epoch
                    break
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return False
    _, errors = process.communicate()
    if process.returncode and " is finished" not in errors:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{errors}")
    return True


def _kill_server(server: Server | None, kills: int, record: RunRecord, stop: threading.Event, seed: float) -> None:
    rng = random.Random(seed)
    while server and record.server_kills < kills and not stop.wait(rng.uniform(2, 15)):
        server.kill()
        record.server_kills += 1
        stop.wait(rng.uniform(0, 15))
        server.start()
        server.wait()


def _add_mlflow_record(uri: str, record: RunRecord) -> None:
    """Add the runs, parameters and curves that MLflow has at `uri` to `record`."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("fr-ps")
    runs = client.search_runs([experiment.experiment_id])
    record.runs, record.statuses = len(runs), [run.info.status for run in runs]
    for run in runs:
        record.params |= run.data.params
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            record.curves.setdefault(name, []).extend((point.step, point.value) for point in history)


if __name__ == "__main__":
    main()
