"""Trainings with several processes: run torchrun on this machine, or detect that torchrun has started this process."""

import logging
import os
import signal
import sys
from collections.abc import Sequence

from fr_ps.errors import InputError
from fr_ps.progress import echo

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


def run_torchrun(processes: int, arguments: Sequence[str]) -> None:
    """Run `fr-ps` with the same `arguments` in `processes` processes on this machine, and wait for their end.

    Raises:
        SystemExit: with the exit code of the process that failed first, which has printed its error; 128 plus the number of the
            signal if one ended that process or this one.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    logging.disable(logging.ERROR)  # torchrun repeats the failure of a process in dozens of lines
    try:
        main(["--standalone", "--nproc-per-node", str(processes), "-m", "fr_ps", *arguments])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            raise SystemExit(failure.exitcode) from None
        name = signal.Signals(-failure.exitcode).name
        echo(f"error: process {rank} of {processes} was ended by {name}; see the lines above", sys.stderr)
        raise SystemExit(128 - failure.exitcode) from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
    finally:
        logging.disable(logging.NOTSET)
