"""Fixtures of the evaluation tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def few_replicates() -> Iterator[None]:
    """50 bootstrap replicates and 10 permutations, for tests of a whole evaluation that do not check the intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fr_ps.evaluation.bootstrap.REPLICATES", 50)
        patch.setattr("fr_ps.evaluation.analyses.linear_probes.PERMUTATIONS", 10)
        yield
