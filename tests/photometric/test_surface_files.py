"""Surfaces for other programs, read back by small parsers of the formats."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fr_ps.config import NormalConvention
from fr_ps.photometric.surface_files import Mesh, build_mesh, normal_map_png, obj_bytes, ply_bytes
from tests.photometric.surfaces import grid, sphere

RADIUS = 14.0


def ball() -> tuple[Mesh, np.ndarray]:
    """The mesh of the front of a ball of `RADIUS`, without its steep rim, and its mask; 40 x 36 pixels."""
    x, y = grid(40, 36)
    mask = np.hypot(x, y) < 0.95 * RADIUS
    depth = np.sqrt(np.maximum(RADIUS**2 - x**2 - y**2, 0))
    normal = np.stack([x, y, depth], axis=-1) / RADIUS
    gray = np.broadcast_to(np.arange(36, dtype=np.uint8) * 7, mask.shape)
    return build_mesh(depth, normal, gray, mask), mask


def read_ply(content: bytes) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Properties of the vertices by name, and the corners of the triangles; only little endian with triangles."""
    text, _, body = content.partition(b"end_header\n")
    lines = [line.split() for line in text.decode("ascii").splitlines()]
    assert lines[:2] == [["ply"], ["format", "binary_little_endian", "1.0"]]
    counts = {line[1]: int(line[2]) for line in lines if line[0] == "element"}
    kinds = {"float": "<f4", "uchar": "u1"}
    vertex = np.dtype([(line[2], kinds[line[1]]) for line in lines if line[0] == "property" and line[1] != "list"])
    assert ["property", "list", "uchar", "int", "vertex_indices"] in lines
    vertices = np.frombuffer(body, vertex, counts["vertex"])
    faces = np.frombuffer(body, np.dtype([("n", "u1"), ("i", "<i4", 3)]), counts["face"], offset=vertices.nbytes)
    assert vertices.nbytes + faces.nbytes == len(body)
    assert (faces["n"] == 3).all()
    return {name: vertices[name].astype(float) for name in vertex.names or ()}, faces["i"]


def assert_faces_the_camera(places: np.ndarray, faces: np.ndarray) -> None:
    """Every triangle is counter-clockwise in x and y, and indices are valid."""
    assert faces.min() >= 0
    assert faces.max() < len(places)
    a, b, c = (places[faces[:, corner]] for corner in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


def test_a_ply_file_has_the_places_normals_and_colours_of_a_ball() -> None:
    mesh, mask = ball()
    vertices, faces = read_ply(ply_bytes(mesh, "S001/sé0"))
    assert len(vertices["x"]) == mask.sum()
    places = np.stack([vertices[name] for name in "xyz"], axis=1)
    normals = np.stack([vertices[name] for name in ("nx", "ny", "nz")], axis=1)
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), RADIUS, rtol=1e-5)
    np.testing.assert_allclose(normals, places / RADIUS, atol=1e-5)
    for color in ("red", "green", "blue"):
        np.testing.assert_array_equal(vertices[color], (vertices["x"] + 17.5) * 7)
    assert places[0, 1] == places[:, 1].max() > 12  # rows go down, y goes up
    assert_faces_the_camera(places, faces)
    # The squares of four pixels in the mask have two triangles each, those of three have one.
    corners = mask[1:, 1:].astype(int) + mask[1:, :-1] + mask[:-1, 1:] + mask[:-1, :-1]
    assert 2 * (corners == 4).sum() <= len(faces) <= 2 * (corners == 4).sum() + (corners == 3).sum()
    assert len(np.unique(np.sort(faces, axis=1), axis=0)) == len(faces)


def test_an_obj_file_has_the_same_mesh() -> None:
    mesh, _ = ball()
    lines = [line.split() for line in obj_bytes(mesh, "S001/s00").decode().splitlines()]
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], dtype=float)
    normals = np.array([line[1:] for line in lines if line[0] == "vn"], dtype=float)
    faces = [[corner.split("//") for corner in line[1:]] for line in lines if line[0] == "f"]
    indices = np.array([[int(place) for place, _ in face] for face in faces]) - 1
    assert all(place == normal for face in faces for place, normal in face)
    np.testing.assert_allclose(vertices[:, :3], mesh.places, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(vertices[:, 3:], np.repeat(mesh.colors[:, None] / 255, 3, axis=1), atol=1e-3)
    np.testing.assert_allclose(normals, mesh.normals, atol=1e-4)
    assert_faces_the_camera(vertices[:, :3], indices)
    np.testing.assert_array_equal(indices, mesh.faces)


def test_triangles_bridge_no_hole_of_the_mask() -> None:
    mask = np.ones((5, 5), dtype=bool)
    mask[2] = False
    mesh = build_mesh(np.zeros((5, 5)), np.zeros((5, 5, 3)), np.zeros((5, 5), dtype=np.uint8), mask)
    assert len(mesh.places) == 20
    assert len(mesh.faces) == 16
    rows = mesh.places[mesh.faces][..., 1]
    assert ((rows > 0).all(axis=1) | (rows < 0).all(axis=1)).all()


@pytest.mark.parametrize(("convention", "sign"), [("opengl", 1), ("directx", -1)])
def test_a_normal_map_is_decoded_to_the_normals(convention: NormalConvention, sign: int) -> None:
    normal, _, _ = sphere(24)
    with Image.open(BytesIO(normal_map_png(normal, convention, "S001/s00"))) as image:
        assert (image.mode, image.size) == ("RGB", (24, 24))
        description = image.info["Description"]
        decoded = np.asarray(image) / 127.5 - 1
    decoded[..., 1] *= sign
    assert np.abs(decoded - normal).max() < 1 / 127
    assert {"opengl": "OpenGL", "directx": "DirectX"}[convention] in description
    assert ("green y up" in description) == (convention == "opengl")
