"""Work on a user's text is stopped where it takes too long or too much memory; the process goes on as before."""

import resource
import signal

import pytest

from potstill.limits import LimitError, limited


def state():
    memory, timer = resource.getrlimit(resource.RLIMIT_AS), signal.getitimer(signal.ITIMER_VIRTUAL)
    return memory, timer, signal.getsignal(signal.SIGVTALRM)


def for_ever():
    while True:
        pass


def double_for_ever():
    text = "ab"
    while True:
        text += text


@pytest.mark.parametrize(
    ("work", "seconds", "memory", "said"),
    [
        (for_ever, 0.1, 2**28, "takes longer than 0.1 seconds"),
        (double_for_ever, 60, 2**26, "takes more than 64 MiB of memory"),
        (lambda: bytearray(2**40), 60, 2**26, "takes more than 64 MiB of memory"),
    ],
)
def test_work_that_takes_too_much_is_stopped(work, seconds, memory, said):
    before = state()
    with pytest.raises(LimitError, match=f"^{said}$"), limited(seconds, memory):
        work()
    assert state() == before


def test_other_errors_and_results_pass():
    before = state()
    with pytest.raises(ZeroDivisionError), limited(1, 2**28):
        1 / 0  # noqa: B018
    with limited(1, 2**28):
        kept = "a" * 1000
    assert len(kept) == 1000
    assert state() == before
