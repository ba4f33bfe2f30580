"""What a model is worth: scores, metrics, the report."""
