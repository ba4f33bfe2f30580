"""Selection of the device and of the training's precision."""

import pytest
import torch

from fr_ps.device import pick_device, pick_precision
from fr_ps.errors import InputError

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
