"""The files of `fr-ps data show`: pictures, page and surface of one session."""

from fr_ps.config import NormalConvention
from fr_ps.data.session_picture import albedo_white, png_bytes, residual_share, session_sheet, session_tiles, to_gray
from fr_ps.data.session_view import SessionView
from fr_ps.photometric.surface_files import build_mesh, describe_convention, normal_map_png, obj_bytes, ply_bytes
from fr_ps.report.session_page import MAX_SIDE, render_session_page
from fr_ps.report.table import Table

SESSION_FILES = "session_files"
"""The kind of these outputs for `fr_ps.outputs`."""
SHEET_FILE, PAGE_FILE, NORMAL_MAP_FILE = "session.png", "session.html", "normals.png"
PLY_FILE, OBJ_FILE = "surface.ply", "surface.obj"
FILES = (SHEET_FILE, PAGE_FILE, PLY_FILE, OBJ_FILE, NORMAL_MAP_FILE)


def session_files(view: SessionView, convention: NormalConvention) -> dict[str, bytes]:
    """The content of each of `FILES`."""
    tiles, white = session_tiles(view), albedo_white(view)
    mesh = build_mesh(view.depth, view.normal, to_gray(view.albedo, 0, white)[..., 0], view.mask)
    page = render_session_page(
        view.name,
        _facts(view, convention),
        _quality_table(view),
        {title: [(tile.title, png_bytes(tile.picture, MAX_SIDE)) for tile in group] for title, group in tiles.items()},
        albedo=view.albedo * view.mask,
        normal=view.normal,
        white=white,
    )
    return {
        SHEET_FILE: session_sheet(view, tiles),
        PAGE_FILE: page.encode(),
        PLY_FILE: ply_bytes(mesh, view.name),
        OBJ_FILE: obj_bytes(mesh, view.name),
        NORMAL_MAP_FILE: normal_map_png(view.normal, convention, view.name),
    }


def _facts(view: SessionView, convention: NormalConvention) -> dict[str, str]:
    facts = dict(view.facts)
    if view.recorded:
        facts["residual"] = f"{residual_share(view):.1%} of the recorded pictures, root mean square in the mask"
    return facts | {NORMAL_MAP_FILE: describe_convention(convention)}


def _quality_table(view: SessionView) -> Table | None:
    if not view.quality:
        return None
    header = ("measure", "this session", "median of the data set", "95th percentile", "meaning")
    return Table("quality", "", header, view.quality, "Lower is better in every measure.")
