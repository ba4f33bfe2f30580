"""From captures on disk to batches: prepared data sets, labels, splits, the packed store, sampling, augmentation."""
