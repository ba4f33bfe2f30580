"""The command `demo`."""

from pathlib import Path

from jsonargparse import Namespace

from fr_ps.arguments import Command, Parser, Port, add_device_flag, add_model_flag


def _add_arguments(demo: Parser) -> None:
    demo.description = (
        "Serve a page on this computer that shows what a model computes from a capture: pictures, maps under a movable light, "
        "attributes, the most similar enrolled subjects, and quality. Needs pip install 'fr-ps[demo]'."
    )
    add_model_flag(demo)
    demo.add_argument("--gallery", type=str, default=None, help="gallery folder: show the most similar enrolled subjects")
    demo.add_argument(
        "--captures", type=str, default=None, help="raw captures to pick from, and for pictures of enrolled subjects"
    )
    demo.add_argument(
        "--data", type=str, default=None, help="prepared data set, for pictures of enrolled subjects and for its usual quality"
    )
    demo.add_argument("--prior", type=str, default=None, help="the mean face that prepare used, if it did")
    demo.add_argument("--port", type=Port, default=7860, help="port of the page on 127.0.0.1")
    add_device_flag(demo)


def _demo(arguments: Namespace) -> None:
    from fr_ps.demo.demonstrator import open_demonstrator
    from fr_ps.demo.server import bind_port, check_extra, serve
    from fr_ps.serving.gallery import read_gallery
    from fr_ps.serving.recognizer import load_recognizer

    check_extra()
    bound = bind_port(arguments.port)
    gallery = read_gallery(Path(arguments.gallery)) if arguments.gallery else None
    captures, data = (Path(path) if path else None for path in (arguments.captures, arguments.data))
    recognizer = load_recognizer(arguments.model, arguments.device)
    serve(open_demonstrator(recognizer, gallery, captures, data, arguments.prior), bound)


COMMANDS = {"demo": Command(_add_arguments, _demo)}
