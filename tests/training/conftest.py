"""For the tests of training."""

import pytest


@pytest.fixture(autouse=True)
def no_pictures(undrawn: None) -> None:
    """Trainings of these tests draw nothing."""
