"""The short form of benchmarks/chaos.py: a training that is killed, with a store that is too."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "chaos.py"


def test_nothing_is_lost_and_nothing_doubled_by_kills_of_training_and_server(tmp_path):
    words = ["--other-kills", "2", "--server-kills", "1", "--epochs", "3", "--span", "1", "--threads", "1"]
    words += ["--scenarios", "server", "--json", str(tmp_path / "numbers.json")]
    done = subprocess.run([sys.executable, str(BENCHMARK), *words], cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = {name: one["value"] for name, one in json.loads((tmp_path / "numbers.json").read_text()).items()}
    assert numbers["server_kills"] >= 1, done.stdout
    for name in ("lost", "doubled", "other_values", "other_weights", "other_end"):
        assert numbers[f"server_{name}"] == 0, done.stdout + done.stderr
