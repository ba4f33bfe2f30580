"""Models by name and version."""

from fr_ps.errors import InputError, one_line
from fr_ps.tracking.layout import BEST


def register(mlflow_run: str, name: str, tags: dict[str, str]) -> str:
    """Make the best model of a run in MLflow the next version of the registered model `name`; returns `models:/NAME/VERSION`.

    Args:
        mlflow_run: MLflow's id of the run.
        name: of the registered model, made where it is not there yet.
        tags: of the version.

    Raises:
        InputError: MLflow does not answer, or refuses it.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = client.get_run(mlflow_run).info.artifact_uri + f"/{BEST}"
        version = client.create_model_version(name, source, run_id=mlflow_run, tags=tags)
    except MlflowException as error:
        raise InputError(
            f"{name}: run {mlflow_run} cannot be registered under that name ({one_line(error)}); try another"
        ) from None
    return f"models:/{name}/{version.version}"
