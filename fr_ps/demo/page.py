"""The page: what the user picks, and the answers. Gradio draws it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fr_ps.demo.analysis import Analysis
from fr_ps.demo.candidates import Candidate
from fr_ps.demo.demonstrator import Demonstrator
from fr_ps.demo.sections import details_section, error_section, identity_section
from fr_ps.errors import InputError

if TYPE_CHECKING:
    import gradio

TITLE = "FR-PS demonstrator"
STYLE_FILE = Path(__file__).with_name("page.css")
UPLOAD_HELP = (
    "All pictures of one capture, its file of lights (lights.csv, .lp, LightSource.m, light_directions.txt ...), "
    "and its mask or landmarks, if it has them."
)
Searched = tuple[Analysis, list[Candidate]]
"""A capture and its candidates, which are the same for every threshold."""
Answer = tuple[Searched | None, str, str]
"""What was searched, and the HTML of the identity, or of an error, and of the details."""


def build_page(demonstrator: Demonstrator) -> "gradio.Blocks":
    """The page as a Gradio app, which `serve` mounts."""
    import gradio as gr

    def identify(searched: Searched | None, fmr: float | None) -> str:
        return identity_html(demonstrator, searched, fmr) if searched else ""

    names = list(demonstrator.sessions)
    with gr.Blocks(analytics_enabled=False, title=TITLE, fill_width=True) as page:
        gr.Markdown(f"# {TITLE}\n{describe_model(demonstrator)}")
        searched = gr.State()
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                picked = gr.Dropdown(names, value=names[0] if names else None, label="Capture", visible=bool(names))
                files = gr.File(file_count="multiple", label="Or upload a capture", elem_classes="fr_ps_upload")
                gr.Markdown(UPLOAD_HELP, elem_classes="upload_help")
                upload = gr.Button("Analyse the upload", variant="primary")
                choices = [
                    (f"{100 * one.fmr:g} %" + (" (low support)" if one.support else ""), one.fmr)
                    for one in demonstrator.thresholds
                ]
                default = demonstrator.threshold(None)
                fmr = gr.Radio(choices, value=default.fmr if default else None, label="False match rate", visible=bool(choices))
            with gr.Column(scale=4, min_width=320):
                identity, details = (gr.HTML(elem_classes="fr_ps", apply_default_css=False) for _ in range(2))
        outputs = [searched, identity, details]

        def analyse_picked(name: str | None, rate: float | None) -> Answer:
            return answer(demonstrator, lambda: demonstrator.analyse(name), rate) if name else (None, "", "")

        def analyse_uploaded(paths: list[str] | None, rate: float | None) -> tuple[None, *Answer]:
            return None, *answer(demonstrator, lambda: demonstrator.analyse_files(paths or []), rate)  # None: nothing is picked

        gr.on([page.load, picked.input], analyse_picked, [picked, fmr], outputs, api_visibility="private")
        upload.click(analyse_uploaded, [files, fmr], [picked, *outputs], api_visibility="private")
        fmr.input(identify, [searched, fmr], identity, api_visibility="private")
    return page


def answer(demonstrator: Demonstrator, analyse: Callable[[], Analysis], fmr: float | None) -> Answer:
    """The analysis, its candidates and their HTML; for bad input, the error."""
    try:
        analysis = analyse()
        details = details_section(analysis, demonstrator.spread, demonstrator.gallery)
        searched = analysis, demonstrator.candidates(analysis)
        return searched, identity_html(demonstrator, searched, fmr), details
    except InputError as error:
        return None, error_section(str(error)), ""


def identity_html(demonstrator: Demonstrator, searched: Searched, fmr: float | None) -> str:
    """The identity at the threshold for a false match rate. Searches nothing and encodes no picture again."""
    return identity_section(*searched, demonstrator.threshold(fmr), demonstrator.gallery)


def describe_model(demonstrator: Demonstrator) -> str:
    """The model and the gallery in one line."""
    info = demonstrator.recognizer.info
    model = f"Model `{demonstrator.recognizer.folder}`: {info.backbones} on {', '.join(info.modalities)}."
    gallery = demonstrator.gallery
    enrolled = (
        f" Gallery `{gallery.folder}`: {len(gallery.table):,} sessions of {len(gallery.subjects):,} subjects." if gallery else ""
    )
    return model + enrolled
