"""What a process that only serves a model does not import."""

import subprocess
import sys

MODULES = (
    "export",
    "gallery",
    "mlflow_model",
    "predict",
    "pyfunc_model",
    "recognizer",
    "registry",
    "request",
    "results",
)


def test_serving_imports_no_metrics_code_and_no_matplotlib() -> None:
    script = f"import sys\nfrom fr_ps.serving import {', '.join(MODULES)}\nprint(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "fr_ps.serving.recognizer" in loaded
    assert not [name for name in loaded if name.startswith(("fr_ps.evaluation", "fr_ps.report", "matplotlib"))]
