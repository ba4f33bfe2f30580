"""The surface of a session for other programs: a triangle mesh as PLY and OBJ, and the normals as a normal map in PNG."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fr_ps.config import NormalConvention

AXES = "1 unit = 1 pixel; x right, y up, z toward the camera; x = y = 0 in the middle of the picture"
_VERTEX = np.dtype([("place", "<f4", 3), ("normal", "<f4", 3), ("color", "u1", 3)])
_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


@dataclass(frozen=True)
class Mesh:
    """Triangles over the pixels of a mask.

    Attributes:
        places: (n, 3) float32, one vertex a pixel, row by row; see `AXES`.
        normals: (n, 3) float32 unit vectors.
        colors: (n,) uint8, gray.
        faces: (m, 3) int32 indices of vertices, counter-clockwise as seen from the camera.
    """

    places: np.ndarray
    normals: np.ndarray
    colors: np.ndarray
    faces: np.ndarray


def build_mesh(depth: np.ndarray, normal: np.ndarray, gray: np.ndarray, mask: np.ndarray) -> Mesh:
    """The mesh of a depth map. Every triangle has its three corners in the mask.

    Args:
        depth: (H, W) in pixels, growing toward the camera.
        normal: (H, W, 3) unit vectors.
        gray: (H, W) uint8 colour of the vertices.
        mask: (H, W) bool.
    """
    height, width = depth.shape
    row, column = np.nonzero(mask)
    places = np.stack([column - (width - 1) / 2, (height - 1) / 2 - row, depth[mask]], axis=1)
    number = np.full(depth.shape, -1, dtype=np.int32)
    number[mask] = np.arange(len(row))
    top_left, top_right, low_left, low_right = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    triangles = np.stack([(top_left, low_left, low_right), (top_left, low_right, top_right)]).reshape(2, 3, -1)
    faces = triangles.transpose(2, 0, 1).reshape(-1, 3)
    return Mesh(places.astype(np.float32), normal[mask].astype(np.float32), gray[mask], faces[(faces >= 0).all(axis=1)])


def ply_bytes(mesh: Mesh, title: str) -> bytes:
    """The mesh in PLY, binary little endian, with normals and colours of the vertices."""
    vertices = np.empty(len(mesh.places), dtype=_VERTEX)
    vertices["place"], vertices["normal"], vertices["color"] = mesh.places, mesh.normals, mesh.colors[:, None]
    faces = np.empty(len(mesh.faces), dtype=_FACE)
    faces["count"], faces["corners"] = 3, mesh.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {_ascii(title)}",
        f"comment {AXES}",
        f"element vertex {len(vertices)}",
        *(f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def obj_bytes(mesh: Mesh, title: str) -> bytes:
    """The mesh in Wavefront OBJ, with normals and, as most programs read them, colours behind the places of the vertices."""
    text = BytesIO()
    text.write(f"# {_ascii(title)}\n# {AXES}\n".encode())
    colors = np.repeat(mesh.colors[:, None] / 255, 3, axis=1)
    np.savetxt(text, np.hstack([mesh.places, colors]), "v %.6g %.6g %.6g %.3f %.3f %.3f")
    np.savetxt(text, mesh.normals, "vn %.5f %.5f %.5f")
    np.savetxt(text, np.repeat(mesh.faces + 1, 2, axis=1), "f %d//%d %d//%d %d//%d")
    return text.getvalue()


def encode_normals(normal: np.ndarray, convention: NormalConvention = "opengl") -> np.ndarray:
    """(H, W, 3) unit vectors as (H, W, 3) uint8: (n + 1) x 127.5 as red, green, blue; with `directx`, green is of -n_y."""
    signs = np.array([1, -1 if convention == "directx" else 1, 1])
    return np.rint((normal * signs + 1) * 127.5).clip(0, 255).astype(np.uint8)


def describe_convention(convention: NormalConvention) -> str:
    """The convention of a normal map in one line."""
    name, green = ("DirectX", "down") if convention == "directx" else ("OpenGL", "up")
    return f"{name} convention: red x right, green y {green}, blue z toward the camera; n = value / 127.5 - 1"


def normal_map_png(normal: np.ndarray, convention: NormalConvention, title: str) -> bytes:
    """The normals (H, W, 3) as a PNG of 8 bits a channel, with its convention in the text chunk `Description`."""
    notes = PngInfo()
    notes.add_text("Title", _ascii(title))
    notes.add_text("Description", f"Normal map, {describe_convention(convention)}")
    content = BytesIO()
    Image.fromarray(encode_normals(normal, convention)).save(content, "PNG", pnginfo=notes)
    return content.getvalue()


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
