"""The progress log of a training: steps that are repeated count once, and a cut line spoils no other."""

import json

import pytest

from potstill.files.progress_log import PROGRESS, ProgressLog, read_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [1000.0]
    monkeypatch.setattr("potstill.files.progress_log.time.time", lambda: now[0])
    return now


@pytest.fixture
def log(tmp_path):
    return ProgressLog(tmp_path / PROGRESS)


def read(tmp_path):
    return read_progress(tmp_path / PROGRESS)


def write(log, clock, steps, seconds=2.0):
    for step in steps:
        clock[0] += seconds
        log.write(step, 100 * step, {"loss": 5.0 - step})


def test_speed_and_time_left_are_those_of_late(tmp_path, log, clock):
    log.begin(0, 40)
    write(log, clock, range(1, 4), seconds=100.0)
    write(log, clock, range(4, 21))
    found = read(tmp_path)
    assert (found.done, found.steps) == (20, 40)
    assert found.tokens_per_second == pytest.approx(50.0)
    assert found.seconds_left == pytest.approx(40.0)


def test_a_training_that_goes_on_repeats_steps_and_counts_its_own_speed(tmp_path, log, clock):
    log.begin(0, 10)
    write(log, clock, range(1, 8))
    clock[0] += 5000
    log.begin(4, 10)
    assert read(tmp_path).done == 4
    assert read(tmp_path).tokens_per_second is None
    write(log, clock, (5, 6), seconds=10.0)
    found = read(tmp_path)
    assert [line["step"] for line in found.lines] == [1, 2, 3, 4, 5, 6]
    assert found.tokens_per_second == pytest.approx(10.0)
    assert found.seconds_left == pytest.approx(40.0)


@pytest.mark.parametrize("cut", ['{"time": 12', "{", '"a word"', "[1]", '{"step": 9}', "\x00\x00", "naïve"])
def test_a_line_that_is_not_whole_is_left_out_and_spoils_no_other(tmp_path, log, clock, cut):
    log.begin(0, 10)
    write(log, clock, (1, 2))
    with (tmp_path / PROGRESS).open("a") as stream:
        stream.write(cut)
    assert read(tmp_path).done == 2
    log.begin(2, 10)
    write(log, clock, (3,))
    assert [line["step"] for line in read(tmp_path).lines] == [1, 2, 3]


def test_a_log_may_be_missing_or_empty(tmp_path, log):
    assert read(tmp_path) is None
    (tmp_path / PROGRESS).touch()
    found = read(tmp_path)
    assert (found.done, found.steps, found.tokens_per_second, found.seconds_left) == (0, 0, None, None)


def test_lines_are_plain_json(tmp_path, log):
    log.begin(0, 2)
    log.write(1, 7, {"texts": [{"beginning": "Ä", "text": "\n"}]})
    *_, last = (tmp_path / PROGRESS).read_text(encoding="utf-8").splitlines()
    assert json.loads(last)["texts"] == [{"beginning": "Ä", "text": "\n"}]
