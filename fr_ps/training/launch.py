"""Trainings with several processes: start torchrun on this machine, or detect that torchrun has started this process."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from fr_ps.errors import InputError

_RENDEZVOUS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun has started.

    Raises:
        InputError: WORLD_SIZE is not a number, or it is not 1 and other variables that torchrun sets are missing.
    """
    size = os.environ.get("WORLD_SIZE") or "1"
    if size == "1":
        return False
    remedy = "start several processes with torchrun --nproc-per-node N -m fr_ps train ..., or unset WORLD_SIZE"
    if not size.isdigit():
        raise InputError(f"WORLD_SIZE is {size!r}; expected a number; {remedy}")
    if missing := [name for name in _RENDEZVOUS if not os.environ.get(name)]:
        verb = "is" if len(missing) == 1 else "are"
        raise InputError(f"WORLD_SIZE is {size}, but {', '.join(missing)} {verb} not set; {remedy}")
    return True


def exec_torchrun(processes: int, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by torchrun, which runs `fr-ps` with the same `arguments` in `processes` processes on this machine."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    os.execv(sys.executable, [*torchrun, "-m", "fr_ps", *arguments])
