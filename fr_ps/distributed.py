"""Several processes that train one network together (torchrun): the main process, and the exchange of values between them.

With a single process, the functions exchange nothing. The main process is number 0: it alone writes files, logs, prints, and
contacts MLflow.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from fr_ps.errors import InputError, one_line

Value = TypeVar("Value")


class LostProcessError(InputError):
    """The connection to another process of the training broke, because it ended or its machine cannot be reached."""


_LARGE = 1 << 16
"""Number of values above which a gradient is exchanged alone: 256 kB in float32."""
_TIMEOUT = timedelta(minutes=10)
_ENDED, _WAIT_FOR_MAIN = "fr_ps/main_process_ended", timedelta(seconds=25)
"""Key that the main process sets at its end, and how long the others wait for it: torchrun stops them after 30 s."""


@contextmanager
def process_group(timeout: timedelta = _TIMEOUT) -> Iterator[None]:
    """Join the processes that torchrun started; without torchrun, or with one process, does nothing.

    torchrun stops all processes as soon as one fails. If the block raises InputError, KeyboardInterrupt or SystemExit in another
    process than the main one, that process therefore waits until the main one, which still writes and prints, has ended. Then it
    ends without a message. If the main process does not end in time, the other one raises its own error. A LostProcessError is
    raised at once.

    Args:
        timeout: after which a process that waits for another one fails.

    Raises:
        InputError: no connection to the other processes.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, number, processes = next(distributed.rendezvous("env://", timeout=timeout))
        distributed.init_process_group(backend, store=store, rank=number, world_size=processes, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise InputError(
            f"no connection to the other processes at {where} ({one_line(error, 120)}); check that torchrun was started on every "
            "machine with the same --rdzv-endpoint"
        ) from None
    try:
        yield
    except LostProcessError:
        raise
    except (InputError, KeyboardInterrupt, SystemExit) as error:
        if number and _main_process_ended(store):
            raise SystemExit(2) from error
        raise
    finally:
        if not number:
            with suppress(RuntimeError):  # the machine of the store may have ended, while this one wrote the report
                store.set(_ENDED, "1")
        distributed.destroy_process_group()


def _main_process_ended(store: distributed.Store) -> bool:
    """Wait for the end of the main process."""
    with suppress(RuntimeError):
        store.wait([_ENDED], _WAIT_FOR_MAIN)
        return True
    return False


@contextmanager
def _exchange() -> Iterator[None]:
    """Convert the RuntimeError with which the backend ends a failed exchange.

    Raises:
        LostProcessError: a process ended, or did not answer in time.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise LostProcessError(
            f"another process of this training ended, or its machine cannot be reached ({one_line(error, 120)}); see its output"
        ) from None


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main_process() -> bool:
    """Whether this process writes, logs and prints."""
    return rank() == 0


def own_rows(count: int) -> slice:
    """The rows of a batch of `count` that this process trains on; `count` is a multiple of the number of processes."""
    share = count // world_size()
    return slice(rank() * share, (rank() + 1) * share)


def own_part(count: int, process: int | None = None) -> range:
    """The contiguous part of `count` rows that process number `process` holds (None: this one); sizes differ by at most 1."""
    number = rank() if process is None else process
    return range(count * number // world_size(), count * (number + 1) // world_size())


class _GatherRows(torch.autograd.Function):
    """(b, ...) of each process -> (b P, ...) of all P. The gradient of the own rows is passed back."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(world_size())]
        with _exchange():
            distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0][own_rows(len(gradients[0]))]


def gather_rows(own: Tensor) -> Tensor:
    """The rows of all processes, in their order.

    Each process computes the loss of the whole batch from them, and the whole gradient of this loss with respect to its own rows.
    So the gradients of the network, summed over the processes by `sum_gradients`, equal those of a single process that trains on
    the whole batch.
    """
    return _GatherRows.apply(own) if world_size() > 1 else own


class _SumGradient(torch.autograd.Function):
    """The identity; its backward pass sums the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_processes_(gradients[0].clone(memory_format=torch.contiguous_format))


def with_summed_gradient(tensor: Tensor) -> Tensor:
    """Return `tensor`, which is equal in all processes, and from which each process computes a part of the loss.

    The backward pass sums the gradients of all parts, so that each process gets the gradient of the whole loss.
    """
    return _SumGradient.apply(tensor) if world_size() > 1 else tensor


def sum_over_processes_(tensor: Tensor) -> Tensor:
    """Replace `tensor` by its sum over the processes, and return it; without gradient."""
    if world_size() > 1:
        with _exchange():
            distributed.all_reduce(tensor)
    return tensor


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace the gradients by their sums over the processes. All processes have gradients of the same parameters."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    with _exchange():
        pending = [distributed.all_reduce(gradient, async_op=True) for gradient in gradients if _is_large(gradient)]
        buckets = [(bucket, torch.cat([gradient.flatten() for gradient in bucket])) for bucket in _buckets(gradients)]
        pending += [distributed.all_reduce(flat, async_op=True) for _, flat in buckets]
        for work in pending:
            work.wait()
    for bucket, flat in buckets:
        parts = flat.split([gradient.numel() for gradient in bucket])
        torch._foreach_copy_(bucket, [part.view_as(gradient) for part, gradient in zip(parts, bucket)])


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace each gradient by its mean over the processes, so that the parameters stay identical in all of them.

    Before, the gradients differ by rounding only.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if world_size() > 1 and gradients:
        sum_gradients(parameters)
        torch._foreach_div_(gradients, world_size())


def _is_large(gradient: Tensor) -> bool:
    """Whether a gradient is exchanged in place rather than in a bucket: copies and new memory cost more than an exchange."""
    return gradient.numel() > _LARGE


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """The gradients that are not large, grouped by data type."""
    buckets: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients:
        if not _is_large(gradient):
            buckets.setdefault(gradient.dtype, []).append(gradient)
    return list(buckets.values())


@torch.no_grad()
def copy_from_main_process(tensors: Sequence[Tensor]) -> None:
    """Replace the values of `tensors` by those of the main process."""
    if world_size() == 1:
        return
    for tensor in tensors:
        with _exchange():
            distributed.broadcast(tensor, 0)


def gather_parts(own: Tensor, count: int) -> Tensor:
    """In the main process the (count, ...) tensor of all parts (`own_part`), in the others their own part; on the CPU."""
    own = own.detach().cpu().contiguous()
    if not is_main_process():
        with _exchange():
            distributed.send(own, 0)
        return own
    whole = own.new_empty(count, *own.shape[1:])
    whole[: len(own)] = own
    for process in range(1, world_size()):
        part = own_part(count, process)
        with _exchange():
            distributed.recv(whole[part.start : part.stop], process)
    return whole


def scatter_parts(whole: Tensor) -> Tensor:
    """The own part of the main process's (count, ...) `whole`, on the CPU. Others pass any `whole` of its shape and type."""
    own = own_part(len(whole))
    if not is_main_process():
        received = torch.empty(len(own), *whole.shape[1:], dtype=whole.dtype)
        with _exchange():
            distributed.recv(received, 0)
        return received
    for process in range(1, world_size()):
        part = own_part(len(whole), process)
        with _exchange():
            distributed.send(whole[part.start : part.stop].contiguous(), process)
    return whole[: len(own)].clone()


def any_process(flag: int) -> int:
    """The largest `flag` of all processes."""
    if world_size() == 1:
        return flag
    tensor = torch.tensor(flag)
    with _exchange():
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    return int(tensor)


def gather_objects(value: Value) -> list[Value]:
    """The values of all processes, in their order. Only for trusted processes: values are pickled."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    with _exchange():
        distributed.all_gather_object(found, value)
    return found


def from_main_process(function: Callable[[], Value]) -> Value:
    """The value of `function`, which only the main process calls. If it raises an InputError, the others exit with code 2.

    Only for trusted processes: the value is pickled.
    """
    if world_size() == 1:
        return function()
    message: list[Any] = [None, False]
    try:
        if is_main_process():
            message = [function(), True]
    finally:
        with _exchange():
            distributed.broadcast_object_list(message, device=torch.device("cpu"))
    value, succeeded = message
    if not succeeded:
        raise SystemExit(2)
    return value


def receive_from_main_process() -> Any:
    """The value that `from_main_process` returns in the main process at the same time; only for the other processes."""
    return from_main_process(lambda: None)
