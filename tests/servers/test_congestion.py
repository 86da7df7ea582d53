import pytest

from potstill.servers.congestion import RequestRate, RequestWindow


def answered(window: RequestWindow, count: int) -> None:
    for _ in range(count):
        with window.place():
            pass
        window.grow()


def test_a_window_grows_to_its_greatest_width_and_halves_once_for_each_overload():
    window = RequestWindow(16)
    answered(window, 300)
    assert window.width == 16
    with window.place() as first, window.place() as second:
        window.shrink(first)
        # The second request began before the window was halved, so it says nothing new.
        window.shrink(second)
    assert window.width == 8
    with window.place() as later:
        window.shrink(later)
    assert window.width == 4


def test_one_request_is_always_allowed():
    window = RequestWindow(1)
    for _ in range(5):
        with window.place() as number:
            window.shrink(number)
    assert window.width == 1


@pytest.mark.parametrize("per_second", [4.0, 0.5])
def test_requests_begin_no_faster_than_allowed(per_second):
    pauses: list[float] = []
    rate = RequestRate(per_second, pauses.append)
    for _ in range(4):
        rate.wait()
    # Nobody waits here, so the pauses add up.
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert 2.9 / per_second < pauses[3] <= 3 / per_second
