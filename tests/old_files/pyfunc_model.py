"""The model as MLflow loads and serves it. MLflow reads this file from the model's own folder; nothing else imports it."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

from fr_ps.errors import InputError
from fr_ps.serving.recognizer import Recognizer
from fr_ps.serving.request import answer_rows


class FaceModel(PythonModel):
    """Answers about sessions, a row of a table each; see `fr_ps.serving.request`."""

    def load_context(self, context: Any) -> None:
        """Read the model of this folder."""
        self.recognizer = Recognizer(Path(context.artifacts["model"]), torch.device("cpu"))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row a session: quality, embedding, attributes with probabilities.

        Raises:
            MlflowException: bad input, which a server answers by 400 and the reason.
        """
        try:
            return answer_rows(self.recognizer, model_input)
        except InputError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None


set_model(FaceModel())
