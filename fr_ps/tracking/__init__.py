"""The run: its folder, its record in MLflow, its beginning and its end."""
