"""Linear baselines of recognition: embeddings fitted on the training subjects of the same split."""
