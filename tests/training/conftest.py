"""For the tests of training."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def no_figures(undrawn: None) -> None:
    """Trainings of these tests draw nothing."""
