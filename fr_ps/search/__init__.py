"""Search: an Optuna study whose trials are MLflow runs."""
