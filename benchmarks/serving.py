"""Speed of inference: throughput, latency, HTTP server and cold start.

1. Throughput of `predict` (reading files, checks, table, parquet) relative to the bare forward pass on tensors in memory,
   interleaved in one process; also with ONNX Runtime.
2. Latency of one session: median and 95th percentile of torch, of the recognizer with torch and with ONNX Runtime, and of ONNX.
3. `mlflow models serve` with torch, with ONNX Runtime, and with a model that only returns a stored response, for the cost of
   MLflow's own HTTP and JSON. The latency of single requests, which alternate between the three servers; then 1, 8 and 32
   concurrent clients: responses per second, and failed requests.
4. Cold start: from the name in the registry to the first prediction, in a new process; the server until its first response;
   `import fr_ps` and `fr-ps --help`.

The model is untrained, which does not affect its speed.

    python benchmarks/serving.py
"""

import base64
import http.client
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from common import Measurement, argument_parser, interleave, limit_threads, report
from mlflow_server import ModelServer
from tabulate import tabulate

NAME = "faces"
FLOOR = "stored response"


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="convnextv2_atto")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--requests", type=int, default=96, help="for each number of clients")
    options = parser.parse_args()
    limit_threads(options.threads)
    with tempfile.TemporaryDirectory() as name, chdir(name):
        os.environ["FR_PS_CACHE"] = f"{name}/cache"
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{name}/mlflow.db"
        model, data = make_model(Path(name), options.backbone, options.threads)
        numbers, rows = measure_throughput(model, data, options.turns)
        print(tabulate(rows, headers=["", "sessions/s"], floatfmt=".2f"), end="\n\n")
        print(tabulate(measure_latency(model, data), headers=["one session", "p50 ms", "p95 ms"], floatfmt=".2f"), end="\n\n")
        more, rows, server_start = measure_http(Path(name), f"models:/{NAME}@champion", data, options.requests)
        numbers |= more
        print(tabulate(rows, headers=["server", "clients", "responses/s", "p50 ms", "p95 ms", "failed"], floatfmt=".2f"))
        print()
        more, rows = measure_cold_start(server_start)
        numbers |= more
        report(numbers, rows, ["cold start", "seconds, median"], options.json)


def make_model(folder: Path, backbone: str, threads: int) -> tuple[Path, Path]:
    """The model's folder, registered as the champion, and the built-in faces."""
    import torch

    from fr_ps.config import Config, DataConfig, ModelConfig, SyntheticConfig
    from fr_ps.data.builtin import synthetic_dataset
    from fr_ps.data.dataset import open_dataset
    from fr_ps.data.labels import ATTRIBUTES
    from fr_ps.data.splits import make_split
    from fr_ps.models.folder import ModelInfo, write_model
    from fr_ps.serving.registry import register, set_champion
    from fr_ps.tracking.lifecycle import start_run
    from fr_ps.tracking.run_folder import BEST_CHECKPOINT
    from fr_ps.training.setup import TrainingSetup, write_config_and_split

    torch.set_num_threads(threads)
    data = synthetic_dataset(SyntheticConfig(people=32, sessions=6))
    dataset = open_dataset(data, ["albedo"])
    architecture = ModelConfig(backbone=backbone)
    info = ModelInfo(
        {"albedo": architecture}, "concat", dataset.store.map_size, dataset.labels.classes, ATTRIBUTES, {"run": "benchmark"}
    )
    network = info.build_network()
    config = Config(data=DataConfig(root=str(data)), model=architecture)
    setup = TrainingSetup(config, dataset, make_split(dataset.labels, config.data), info)
    (folder / "model").mkdir()
    write_model(folder / "model", network.state_dict(), info)
    write_config_and_split(folder / "model", setup)
    with start_run("benchmark", Path("runs")) as run:
        shutil.copytree(folder / "model", run.folder / BEST_CHECKPOINT)
        run.log_model(run.folder / BEST_CHECKPOINT, 1)
    set_champion(register(run.id, NAME), None)
    return folder / "model", data


def measure_throughput(model: Path, data: Path, turns: int) -> tuple[dict[str, Measurement], list[list[object]]]:
    """Sessions per second of the bare forward pass and of `predict`."""
    import numpy as np
    import torch

    from fr_ps.data.dataset import open_dataset
    from fr_ps.serving.predict import list_prepared_sessions, predict_sessions
    from fr_ps.serving.recognizer import load_recognizer
    from fr_ps.serving.results import prediction_table, write_table

    recognizer, onnx = (load_recognizer(str(model), "cpu", engine) for engine in ("torch", "onnx"))
    sessions = list_prepared_sessions(recognizer, data)
    store = open_dataset(data, ["albedo"]).store
    albedo = torch.from_numpy(store.read(np.arange(len(store.selected)))["albedo"])
    batches = albedo.split(64)

    @torch.inference_mode()
    def bare() -> None:
        for batch in batches:
            recognizer.network({"albedo": batch})

    def predict(by: Any) -> None:
        answered = predict_sessions(by, sessions, 64)
        write_table(Path("out.parquet"), prediction_table(by, answered.predictions, answered.keys))

    ways = {"bare forward pass": bare, "predict": lambda: predict(recognizer), "predict, ONNX": lambda: predict(onnx)}
    seconds = interleave(ways, turns)
    ratio = statistics.median(b / p for b, p in zip(seconds["bare forward pass"], seconds["predict"]))
    rows: list[list[object]] = [[name, len(albedo) / statistics.median(each)] for name, each in seconds.items()]
    gain = statistics.median(p / o for p, o in zip(seconds["predict"], seconds["predict, ONNX"]))
    return {
        "predict_ratio": Measurement(ratio, 0.9, "higher", "sessions/s of predict over the bare forward pass"),
        "predict_onnx_gain": Measurement(gain, 1, "higher", "sessions/s of predict with ONNX over torch"),
    }, rows


def measure_latency(model: Path, data: Path, turns: int = 12, block: int = 8) -> list[list[object]]:
    """Latency of one session with bare torch, with ONNX, and with the recognizer on both.

    Alternates in blocks, because the threads of ONNX spin for a while after a run and slow down the next measurement.
    """
    import numpy as np
    import torch

    from fr_ps.serving.export import ONNX_FILE, export
    from fr_ps.serving.onnx_graph import onnx_session
    from fr_ps.serving.recognizer import load_recognizer

    recognizer, by_onnx = (load_recognizer(str(model), "cpu", engine) for engine in ("torch", "onnx"))
    export(recognizer, Path("onnx"), None, part=None, batch=1)
    onnx = onnx_session(Path("onnx") / ONNX_FILE)
    albedo = np.load(next(data.glob("data/*/*/albedo.npy")))
    maps = {"albedo": albedo[None, None]}

    @torch.inference_mode()
    def bare() -> None:
        recognizer.network({"albedo": torch.from_numpy(maps["albedo"])})

    ways: dict[str, Callable[[], Any]] = {
        "torch, bare": bare,
        "torch, recognizer.embed": lambda: recognizer.embed({"albedo": albedo}),
        "ONNX, bare": lambda: onnx(maps),
        "ONNX, recognizer.embed": lambda: by_onnx.embed({"albedo": albedo}),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(turns):
        for way in [*ways, *ways][turn % 4 : turn % 4 + 4]:
            time.sleep(0.2)
            for count in range(block):
                begun = time.perf_counter()
                ways[way]()
                if count >= 3:
                    seconds[way].append(time.perf_counter() - begun)
    return [[way, *_milliseconds(times)] for way, times in seconds.items()]


def measure_http(folder: Path, model: str, data: Path, requests: int) -> tuple[dict[str, Measurement], list[list[object]], float]:
    """The latency and the rate of each server, and the seconds until the first response of the one with torch."""
    import numpy as np

    content = io.BytesIO()
    np.save(content, np.load(next(data.glob("data/*/*/albedo.npy"))))
    body = json.dumps({"dataframe_records": [{"albedo": base64.b64encode(content.getvalue()).decode()}]}).encode()
    servers: dict[str, ModelServer] = {}
    try:
        begun = time.perf_counter()
        servers["torch"] = start_server(folder / "torch", model, "torch")
        if time_request(servers["torch"], body) is None:
            raise RuntimeError((folder / "torch" / "server.log").read_text())
        server_start = time.perf_counter() - begun
        servers["ONNX"] = start_server(folder / "onnx_server", model, "onnx")
        servers[FLOOR] = start_server(folder / "floor", stored_response(folder, servers["torch"].post(body)[1]), "torch")
        one = interleave({name: lambda server=server: time_request(server, body) for name, server in servers.items()}, requests)
        rows: list[list[object]] = [[name, "1, in turns", "-", *_milliseconds(seconds), "-"] for name, seconds in one.items()]
        rates, failed = {}, 0
        for name, server in servers.items():
            for clients in (1, 8, 32):
                rate, seconds, lost = load_test(server, body, clients, requests)
                rows.append([name, clients, rate, *_milliseconds(seconds), lost])
                rates[name, clients] = rate
                failed += lost
    finally:
        for server in servers.values():
            server.kill()
    beyond = _milliseconds(one["ONNX"])[1] - _milliseconds(one[FLOOR])[1]
    numbers = {
        "failed_requests": Measurement(failed, 0, "lower", f"of {9 * requests} requests by 1, 8 and 32 clients to three servers"),
        "responses_onnx": Measurement(max(rates["ONNX", clients] for clients in (1, 8, 32)), 40, "higher", "responses/s, ONNX"),
        "p95_beyond_http": Measurement(beyond, 30, "lower", "ms, p95 of one request, ONNX, less that of the stored response"),
    }
    return numbers, rows, server_start


def start_server(folder: Path, model: str, engine: str) -> ModelServer:
    """A server that responds."""
    folder.mkdir()
    os.environ["FR_PS_ENGINE"] = engine
    server = ModelServer(folder, model)
    try:
        server.start()
        server.wait()
    except BaseException:
        server.kill()
        raise
    finally:
        del os.environ["FR_PS_ENGINE"]
    return server


STORED_RESPONSE = """
import json
import pandas
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

class Stored(PythonModel):
    def load_context(self, context):
        with open(context.artifacts["response"]) as file:
            self.rows = pandas.DataFrame(json.load(file)["predictions"])

    def predict(self, context, model_input, params=None):
        return self.rows

set_model(Stored())
"""


def stored_response(folder: Path, response: str) -> str:
    """The folder of an MLflow model with our signature that always responds with `response`."""
    import mlflow

    from fr_ps.serving.mlflow_model import signature

    (folder / "response.json").write_text(response)
    (folder / "stored.py").write_text(STORED_RESPONSE)
    mlflow.pyfunc.save_model(
        str(folder / "stored"),
        python_model=str(folder / "stored.py"),
        artifacts={"response": str(folder / "response.json")},
        pip_requirements=["mlflow"],
        signature=signature(),
    )
    return str(folder / "stored")


def time_request(server: ModelServer, body: bytes) -> float | None:
    """Seconds until the response; None without a response, or with a wrong one."""
    begun = time.perf_counter()
    try:
        status, text = server.post(body)
        right = status == 200 and len(json.loads(text)["predictions"]) == 1
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None
    return time.perf_counter() - begun if right else None


def load_test(server: ModelServer, body: bytes, clients: int, requests: int) -> tuple[float, list[float], int]:
    """Responses per second, the seconds of each, and the number of failed requests."""
    found: list[float | None] = []
    left = iter(range(requests))
    lock = threading.Lock()

    def client() -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            found.append(time_request(server, body))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = time.perf_counter() - begun
    answered = [seconds for seconds in found if seconds is not None]
    return len(answered) / whole, answered, requests - len(answered)


COLD_START_SCRIPT = f"""
import numpy, pandas, mlflow
model = mlflow.pyfunc.load_model("models:/{NAME}@champion")
model.predict(pandas.DataFrame([{{"albedo": numpy.full((112, 112), 0.5, numpy.float32)}}]))
"""


def measure_cold_start(server_start: float) -> tuple[dict[str, Measurement], list[list[object]]]:
    """The median of five new processes each; the table also shows `server_start`."""
    ways = {
        "python -c 'pass'": [sys.executable, "-c", "pass"],
        "import fr_ps": [sys.executable, "-c", "import fr_ps"],
        "fr-ps --help": [str(Path(sys.executable).with_name("fr-ps")), "--help"],
        "pyfunc, registry to prediction": [sys.executable, "-c", COLD_START_SCRIPT],
    }
    found = {way: statistics.median(time_command(command) for _ in range(5)) for way, command in ways.items()}
    rows: list[list[object]] = [[way, seconds] for way, seconds in found.items()]
    rows.append(["mlflow models serve, until first response (once)", server_start])
    numbers = {
        "import": Measurement(found["import fr_ps"], 0.3, "lower", "s"),
        "help": Measurement(found["fr-ps --help"], 0.3, "lower", "s"),
    }
    return numbers, rows


def time_command(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def _milliseconds(seconds: Sequence[float]) -> list[float]:
    import numpy as np

    return [1000 * float(np.quantile(seconds, share)) for share in (0.5, 0.95)]


if __name__ == "__main__":
    main()
