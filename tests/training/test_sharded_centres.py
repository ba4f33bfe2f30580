"""Centres sharded over two processes: the loss by torch's cross-entropy over all of them, and the state of one process."""

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from fr_ps.config import LossConfig
from fr_ps.losses import build, build_losses
from tests.conftest import AssertRejected
from tests.test_distributed import ENVIRONMENT, ROOT, TORCHRUN
from tests.training import sharded_step
from tests.training.sharded_step import CASES, SUBJECTS, TARGETS


@pytest.fixture(scope="module")
def written(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the files of both processes."""
    folder = tmp_path_factory.mktemp("sharded")
    command = [*TORCHRUN, "-m", "tests.training.sharded_step", str(prepared), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, env=ENVIRONMENT, timeout=240)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=["-".join(map(str, case)) for case in CASES])
def test_the_loss_is_the_cross_entropy_over_the_centres_of_all_processes(written: Path, number: int) -> None:
    name, share, weighted = CASES[number]
    first, second = (load_file(written / f"{number}-{rank}.safetensors") for rank in (0, 1))
    subjects = torch.cat([first["subjects"], second["subjects"]])
    assert (subjects.diff() > 0).all()
    assert len(subjects) == (SUBJECTS if share == 1 else 13)
    assert first["subjects"].max() < SUBJECTS // 2 <= second["subjects"].min()

    whole, x = sharded_step.build(name, weighted), sharded_step.embeddings().requires_grad_()
    logits = whole.logits(x, TARGETS)[:, subjects]
    factors = torch.linspace(0.2, 1, SUBJECTS)[TARGETS] if weighted else torch.ones(len(TARGETS))
    losses = functional.cross_entropy(logits, torch.searchsorted(subjects, TARGETS), reduction="none")
    expected = (factors * losses).mean() + whole.penalty(x.norm(dim=1))
    to_embeddings, to_centres = torch.autograd.grad(expected, [x, whole.weight])

    assert torch.equal(first["value"], second["value"])
    torch.testing.assert_close(first["value"], expected.detach())
    torch.testing.assert_close(torch.cat([first["embeddings"], second["embeddings"]]), to_embeddings)
    torch.testing.assert_close(torch.cat([first["centres"], second["centres"]]), to_centres[subjects])


@pytest.mark.slow
def test_a_training_has_the_state_of_one_process(written: Path, prepared: Path) -> None:
    saved = load_file(written / "sgd.safetensors")  # AdamW would divide by gradients near 0
    expected = sharded_step.tensors(sharded_step.trained(prepared, "sgd").state.state_dict())
    assert saved.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.double().abs().max())
        torch.testing.assert_close(
            saved[name], value, atol=1e-5 + 1e-3 * scale, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.slow
def test_a_resumed_training_has_the_saved_state(written: Path) -> None:
    saved, again = load_file(written / "saved.safetensors"), load_file(written / "again.safetensors")
    assert saved.keys() == again.keys()
    assert all(torch.equal(again[name], value) for name, value in saved.items())


def test_fewer_subjects_than_processes_are_an_error(monkeypatch: pytest.MonkeyPatch, rejected: AssertRejected) -> None:
    monkeypatch.setattr(build, "world_size", lambda: 4)
    with rejected("loss.sampled_subject_share below 1 (it is 0.5)", "each of the 4 processes", "only 3 training subjects"):
        build_losses(LossConfig(sampled_subject_share=0.5), 8, torch.ones(3), {}, [])
    assert not build_losses(LossConfig(), 8, torch.ones(3), {}, []).sharded
