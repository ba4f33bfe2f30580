"""A local page that shows what a model computes from one capture."""
