"""The guard tells when the written answers leave the band of their first steps, and when they stay outside."""

import json
import math

import pytest

from potstill.on_policy.guard import FIRST_STEPS, Guard

BEGIN = [(100.0, 2.0)] * FIRST_STEPS


def signals(figures, patience=50):
    """What each step gives, and the guard after them."""
    guard = Guard(patience)
    return [guard.update(step, *each) for step, each in enumerate(figures, 1)], guard


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ((400.0, 2.0), "the mean length of the written answers has been outside its band"),
        ((20.0, 2.0), "the band is 33.3 to 300.0"),
        ((100.0, 0.3), "the mean entropy of the written answers has been outside its band"),
        ((100.0, 7.0), "it was 2.00 in the first 10 steps, and the band is 0.50 to 6.00"),
        ((1.0, 0.0), "nats per token"),
        ((100.0, math.nan), "it is nan nats per token"),
    ],
)
def test_what_stays_outside_stops_the_training(figures, said):
    found, guard = signals([*BEGIN, *[figures] * 200], patience=20)
    left = found.index("left")
    assert left >= FIRST_STEPS
    assert found[:left] == [None] * left
    assert "stop" in found
    # The first signal is the 20th step outside, and it does not end by itself.
    stop = found.index("stop")
    assert stop >= left + 19
    assert found[stop:] == ["stop"] * (210 - stop)
    assert said in guard.sentence()
    assert "Since step " in guard.sentence()


@pytest.mark.parametrize(
    "figures",
    [(100.0, 2.0), (290.0, 2.0), (36.0, 2.0), (100.0, 0.55), (100.0, 5.8)],
)
def test_what_stays_inside_gives_no_signal(figures):
    found, guard = signals([*BEGIN, *[figures] * 200])
    assert set(found) == {None}
    with pytest.raises(AssertionError):
        guard.sentence()


@pytest.mark.parametrize("entropy", [0.0, 1e-6, 0.02])
@pytest.mark.parametrize("later", [0.0, 1e-9, 0.05, 0.09])
def test_a_student_that_is_sure_from_the_beginning_does_not_stop(entropy, later):
    assert set(signals([(100.0, entropy)] * FIRST_STEPS + [(100.0, later)] * 200)[0]) == {None}


def test_a_student_that_begins_sure_and_scatters_stops():
    assert "stop" in signals([(100.0, 0.02)] * FIRST_STEPS + [(100.0, 1.0)] * 100)[0]


def test_a_student_that_learns_to_be_sure_does_not_stop():
    assert set(signals([(100.0, 0.35)] * FIRST_STEPS + [(100.0, 0.01)] * 200)[0]) == {None}


def test_one_wild_step_is_no_signal():
    assert set(signals([*BEGIN, (1500.0, 2.0), *[(100.0, 2.0)] * 100])[0]) == {None}


def test_back_inside_counts_anew():
    away, back = [(600.0, 2.0)] * 15, [(100.0, 2.0)] * 40
    found, _ = signals([*BEGIN, *away, *back, *away, *back], patience=30)
    assert found.count("left") == 2
    assert "stop" not in found


def test_the_first_steps_only_make_the_band():
    wild = [(1.0, 0.01), (1000.0, 9.0)] * (FIRST_STEPS // 2)
    assert set(signals(wild)[0]) == {None}


def test_each_figure_has_its_own_count():
    # The length is outside for 25 steps, and the entropy after it.
    figures = [*BEGIN, *[(4000.0, 2.0)] * 12, *[(1.0, 2.0)] * 1, *[(100.0, 2.0)] * 30, *[(100.0, 60.0)] * 12]
    found, guard = signals(figures, patience=40)
    assert found.count("left") == 2
    assert "stop" not in found
    assert "entropy" in guard.sentence()
    assert "length" not in guard.sentence()


def test_both_figures_are_told():
    _, guard = signals([*BEGIN, *[(9000.0, 0.0)] * 100])
    assert "mean length" in guard.sentence()
    assert "mean entropy" in guard.sentence()


def test_exactly_patience_steps_outside_stop():
    found, _ = signals([*BEGIN, *[(1e6, 2.0)] * 60], patience=50)
    assert found == [None] * FIRST_STEPS + ["left"] + [None] * 48 + ["stop"] * 11
    assert signals([*BEGIN, (1e6, 2.0)], patience=1)[0][-1] == "stop"


@pytest.mark.parametrize("cut", [0, 3, FIRST_STEPS, 14, 40])
def test_a_restored_guard_goes_on_to_the_same_signals(cut):
    figures = [(90.0 + step, 2.0 - step / 100) for step in range(FIRST_STEPS)] + [(900.0, 0.1)] * 60
    whole, one = signals(figures)
    _, before = signals(figures[:cut])
    guard = Guard()
    guard.restore(json.loads(json.dumps(before.state(), allow_nan=False)))
    rest = [guard.update(step, *each) for step, each in enumerate(figures[cut:], cut + 1)]
    assert rest == whole[cut:]
    assert guard.state() == one.state()
    assert guard.sentence() == one.sentence()


def test_a_state_is_a_copy():
    guard = Guard()
    guard.update(1, 10.0, 1.0)
    state = guard.state()
    kept = json.dumps(state)
    guard.update(2, 90.0, 3.0)
    assert json.dumps(state) == kept
