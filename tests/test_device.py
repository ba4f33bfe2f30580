"""Selection of the device and of the training's precision."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fr_ps.device import configure_device, full_float32, pick_device, pick_precision
from fr_ps.errors import InputError
from tests.training.runs import make_config, make_trainer

CPU = torch.device("cpu")


def test_auto_finds_a_device_and_an_absent_one_is_an_error() -> None:
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
    assert pick_device("cpu") == CPU
    with pytest.raises(InputError, match="device is 'tpu', not available; expected auto or one of cpu"):
        pick_device("tpu")


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"), [(True, False, "bfloat16"), (False, True, "bfloat16"), (False, False, "float32")]
)
def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it(
    avx512: bool, amx: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert pick_precision("auto", CPU) == getattr(torch, expected)


def test_a_named_precision_is_used_on_every_device() -> None:
    for device in ("cpu", "cuda", "mps"):
        assert pick_precision("float32", torch.device(device)) == torch.float32
        assert pick_precision("bfloat16", torch.device(device)) == torch.bfloat16
    assert pick_precision("auto", torch.device("mps")) == torch.float32


@pytest.fixture
def restored_options() -> Iterator[None]:
    """torch's global options as before the test."""
    yield
    configure_device(CPU, torch.float32, deterministic=False)


@pytest.mark.usefixtures("restored_options")
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_float32_training_is_exact_and_a_deterministic_one_reproducible(
    monkeypatch: pytest.MonkeyPatch, precision: torch.dtype, deterministic: bool
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    configure_device(torch.device("cuda"), precision, deterministic=deterministic)
    products = (torch.backends.cuda.matmul, torch.backends.cudnn)
    assert [one.allow_tf32 for one in products] == [precision != torch.float32] * 2
    with full_float32():
        assert [one.allow_tf32 for one in products] == [False] * 2
    assert [one.allow_tf32 for one in products] == [precision != torch.float32] * 2
    assert torch.backends.cudnn.benchmark != deterministic
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == deterministic
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)


@pytest.mark.usefixtures("restored_options")
def test_a_deterministic_training_has_the_weights_of_an_ordinary_one_on_the_cpu(prepared: Path) -> None:
    weights = []
    for deterministic in (False, True):
        trainer = make_trainer(make_config(prepared, deterministic=deterministic))
        configure_device(CPU, torch.float32, deterministic=deterministic)
        trainer.train_epoch()
        weights.append(trainer.state.network.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
