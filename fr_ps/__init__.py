"""Multi-task face recognition on photometric-stereo maps (albedo, surface normals, depth)."""

__version__ = "0.1.0"
