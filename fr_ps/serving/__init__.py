"""A trained model in use: inference, galleries, the model registry, MLflow models, ONNX."""
