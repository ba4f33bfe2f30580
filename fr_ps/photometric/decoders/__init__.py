"""Decoders of picture files: `images.read_image` selects one by the file's name and first bytes."""
