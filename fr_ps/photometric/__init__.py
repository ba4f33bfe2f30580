"""Photometric stereo: pictures under known lights to albedo, surface normals and depth.

Axes everywhere: x to the right, y up, z toward the camera; row 0 of an array is the top of the picture.
"""
