"""The model that MLflow loads and serves. MLflow runs the copy of this file in the model folder; no module imports it."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

from fr_ps.errors import InputError
from fr_ps.progress import echo
from fr_ps.serving.engine import pick_engine
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.request import predict_rows


class FaceModel(PythonModel):
    """Predicts the sessions of a request; see `fr_ps.serving.request`."""

    def load_context(self, context: Any) -> None:
        """Load the model among the artifacts, with the engine that the environment variable `FR_PS_ENGINE` names."""
        self.recognizer = Recognizer(Path(context.artifacts["model"]), torch.device("cpu"), pick_engine(None))
        if self.recognizer.onnx:
            echo(self.recognizer.onnx.summary())

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per session: quality, embedding, attributes with probabilities.

        Raises:
            MlflowException: invalid input; a server sends status 400 with the message.
        """
        try:
            return predict_rows(self.recognizer, model_input)
        except InputError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None


set_model(FaceModel())
