"""Real signals to this process."""

import os
import signal
import threading

import pytest

from fr_ps.training.signals import GracefulStop, StopRequested


@pytest.fixture(autouse=True)
def listening():
    """A shell starts what it runs in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "left"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_waits_for_the_next_poll(number, left, capfd):
    with GracefulStop() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(StopRequested) as caught:
            stop.check()
    request = caught.value.exit_exception()
    assert isinstance(request, left)
    if isinstance(request, SystemExit):
        assert request.code == 143
    assert f"{signal.Signals(number).name}: finishing the step" in capfd.readouterr().err


@pytest.mark.parametrize("leave", [None, ValueError])
def test_a_signal_after_the_last_check_is_raised_at_the_end_of_the_block(leave):
    with pytest.raises(KeyboardInterrupt), GracefulStop():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        if leave:
            raise leave


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_sigint_stops_at_once(first):
    with GracefulStop():
        os.kill(os.getpid(), first)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_after_the_loss_of_another_process_does_not_end_this_one() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with GracefulStop() as stop:
            stop.acknowledge()
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_sigterm_waits_too_and_the_first_signal_counts():
    with GracefulStop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StopRequested) as caught:
            stop.check()
    assert caught.value.signal_number == signal.SIGINT


def test_a_stop_request_counts_with_standard_error_closed(capfd):
    before = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(reader)
    os.close(writer)
    try:
        with GracefulStop() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(StopRequested):
                stop.check()
    finally:
        os.dup2(before, 2)
        os.close(before)


def test_the_previous_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with GracefulStop():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with GracefulStop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        stop.check()


def test_in_another_thread_a_stop_is_never_requested():
    polled = []

    def run() -> None:
        with GracefulStop() as stop:
            stop.check()
            polled.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert polled
