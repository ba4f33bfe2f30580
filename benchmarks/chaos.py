"""Trainings that are killed again and again, compared with one that was not: what was lost, what was doubled.

One training runs to its end undisturbed. The same is then done three times more under `kill -9` at random moments (while it
starts, trains, validates, writes a checkpoint, delivers, tests), each time gone on with by `fr-ps train --resume`:

    sqlite   with MLflow's own SQLite file
    server   with a real `mlflow server`, which is itself killed and started again at random
    absent   with no server at all until the end, then `fr-ps sync`

Compared are the weights of the last and the best checkpoint, bit for bit, and every point of every curve that MLflow has:
its step, and its value (but for train/images_per_second, which is a speed). A training that was killed while it made its
first steps may have no checkpoint; it then begins again in the same run.

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
    """What a run came to, and what it took."""

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
    parser.add_argument("--kills", type=int, default=100, help="of the training over SQLite")
    parser.add_argument(
        "--server-kills", type=int, default=10, help="of the server, while the training is killed --other-kills times"
    )
    parser.add_argument("--other-kills", type=int, default=25, help="of the training with a server, and with none")
    parser.add_argument("--span", type=float, default=3.0, help="seconds within which a life is ended once it trains")
    parser.add_argument("--epochs", type=int, default=110)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    options = parser.parse_args()
    draw = random.Random(options.seed)
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
        reference = run_with_kills("undisturbed", folder, 0, 0, options.span, draw)
        numbers, rows = {}, []
        for scenario in options.scenarios:
            kills = options.kills if scenario == "sqlite" else options.other_kills
            server_kills = options.server_kills if scenario == "server" else 0
            print(f"{scenario} ...", file=sys.stderr)
            outcome = run_with_kills(scenario, folder, kills, server_kills, options.span, draw)
            row, found = compare(outcome, reference, kills)
            rows.append(row)
            numbers |= found
        headers = ["", "kills", "server kills", "MLflow runs", "status", "points", "lost", "doubled", "other values", "weights"]
        report(numbers, rows, headers, options.json)


def compare(outcome: RunRecord, reference: RunRecord, kills: int) -> tuple[list[object], dict[str, Measurement]]:
    """The row and the numbers of `outcome` beside the undisturbed run."""
    points = sum(map(len, reference.curves.values()))
    lost = doubled = other = 0
    for name in reference.curves | outcome.curves:
        wanted, got = dict(reference.curves.get(name, [])), outcome.curves.get(name, [])
        lost += len(wanted.keys() - {step for step, _ in got})
        doubled += len(got) - len({step for step, _ in got})
        for step, value in got:
            if step not in wanted or (name != SPEED and value != wanted[step]):
                other += 1
                print(f"  {name} at {step}: {value!r} instead of {wanted.get(step)!r}", file=sys.stderr)
    same = outcome.weights == reference.weights
    good_end = outcome.statuses == ["FINISHED"] and outcome.params == reference.params
    row = [outcome.scenario, outcome.kills, outcome.server_kills, outcome.runs, ", ".join(outcome.statuses)]
    values = {
        "kills": Measurement(outcome.kills, kills, "higher", "kill -9 of the training"),
        "lost": Measurement(lost, 0, "lower", f"points of {points}"),
        "doubled": Measurement(doubled, 0, "lower", f"points of {points}"),
        "other_values": Measurement(other, 0, "lower", f"points of {points}"),
        "other_weights": Measurement(0 if same else 1, 0, "lower", "1 if a bit of the last or best weights differs"),
        "other_end": Measurement(0 if good_end else 1, 0, "lower", "1 if not one FINISHED run in MLflow with the same params"),
    }
    numbers = {f"{outcome.scenario}_{name}": number for name, number in values.items()}
    return [*row, points, lost, doubled, other, "the same bits" if same else "OTHER BITS"], numbers


def run_with_kills(scenario: str, folder: Path, kills: int, server_kills: int, span: float, draw: random.Random) -> RunRecord:
    """A training in a folder of its own that is killed so often and gone on with, and what MLflow knows of it in the end."""
    home = folder / scenario
    home.mkdir()
    outcome = RunRecord(scenario)
    uri = f"sqlite:///{home}/mlflow.db"
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    server = Server(home) if scenario in ("server", "absent") else None
    if server:
        environment["MLFLOW_TRACKING_URI"] = server.uri
    if scenario == "server" and server:
        server.start()
        server.wait()
    stop = threading.Event()
    killer = threading.Thread(target=_kill_server, args=(server, server_kills, outcome, stop, draw.random()))
    killer.start()
    words = ["--config", str(folder / "config.yaml")]
    while True:
        ended = run_until_kill(words, home, environment, draw, span if outcome.kills < kills else None)
        outcome.kills += not ended
        if ended:
            break
        if runs := sorted(home.glob("runs/*/config.yaml")):
            words = ["--resume", runs[0].parent.name]
        print(f"  {outcome.kills} kills", file=sys.stderr, flush=True)
    stop.set()
    killer.join()
    if server:
        server.start()
        server.wait()
        uri = server.store
    subprocess.run([sys.executable, "-m", "fr_ps", "sync"], cwd=home, env=environment, check=True, stdout=subprocess.DEVNULL)
    if server:
        server.stop()
    _read(uri, outcome)
    (run,) = [file.parent for file in home.glob("runs/*/config.yaml")]
    outcome.weights = [(run / f"checkpoints/{name}/model.safetensors").read_bytes() for name in ("last", "best")]
    return outcome


def run_until_kill(words: list[str], home: Path, environment: dict[str, str], draw: random.Random, span: float | None) -> bool:
    """One process of the training; whether the run has ended. With a `span` it is killed within so many seconds once it trains.

    One life in five ends before that, somewhere in the starting. A run that was killed after its last word, while it
    delivered that, has ended too, and is not gone on with.
    """
    command = [sys.executable, "-m", "fr_ps", "train", *words]
    process = subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if span is not None:
        delay = draw.uniform(0, span)
        if draw.random() < 0.2:
            delay *= 2  # the start takes some seconds
        else:
            for line in process.stdout:
                if line.startswith("test: "):
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


def _kill_server(server: Server | None, kills: int, outcome: RunRecord, stop: threading.Event, seed: float) -> None:
    draw = random.Random(seed)
    while server and outcome.server_kills < kills and not stop.wait(draw.uniform(2, 15)):
        server.kill()
        outcome.server_kills += 1
        stop.wait(draw.uniform(0, 15))
        server.start()
        server.wait()


def _read(uri: str, outcome: RunRecord) -> None:
    """What MLflow knows of all runs at `uri`."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("fr-ps")
    runs = client.search_runs([experiment.experiment_id])
    outcome.runs, outcome.statuses = len(runs), [run.info.status for run in runs]
    for run in runs:
        outcome.params |= run.data.params
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            outcome.curves.setdefault(name, []).extend((point.step, point.value) for point in history)


if __name__ == "__main__":
    main()
