"""A trained model, for those who did not train it."""
