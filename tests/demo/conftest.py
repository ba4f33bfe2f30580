"""An untrained model, its captures, and a gallery of their first three subjects."""

from pathlib import Path

import pytest

from fr_ps.demo.demonstrator import Demonstrator, open_demonstrator
from fr_ps.serving.enrolment import enroll
from fr_ps.serving.gallery import Gallery
from fr_ps.serving.predict import list_prepared_sessions, predict_sessions
from fr_ps.serving.recognizer import Recognizer
from tests.serving.conftest import both, captures, recognizer  # noqa: F401

ENROLLED = 3
"""Subjects; each with its first two sessions."""


@pytest.fixture(scope="module")
def gallery(recognizer: Recognizer, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Gallery:  # noqa: F811
    sessions = list_prepared_sessions(recognizer, prepared)
    subjects = sorted({session.key[0] for session in sessions})[:ENROLLED]
    chosen = [one for subject in subjects for one in [session for session in sessions if session.key[0] == subject][:2]]
    result = predict_sessions(recognizer, chosen, batch=8)
    folder = tmp_path_factory.mktemp("people") / "gallery"
    return enroll(folder, recognizer.digest, result.keys, result.predictions.embeddings)


@pytest.fixture(scope="module")
def demonstrator(recognizer: Recognizer, gallery: Gallery, captures: Path, prepared: Path) -> Demonstrator:  # noqa: F811
    return open_demonstrator(recognizer, gallery, captures, prepared, None)
