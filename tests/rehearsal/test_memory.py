"""Memory that grows with the steps is seen; what an allocator does at the beginning is not growth."""

import json

import pytest

from potstill.rehearsal.memory import memory_of_trainings, peak_since_last_call


def log(tmp_path, peaks, process=1, run="run"):
    file = tmp_path / "memory.jsonl"
    training = str(tmp_path / run / "distil" / "seed-0" / "checkpoints")
    with file.open("a") as stream:
        for peak in peaks:
            stream.write(json.dumps({"process": process, "training": training, "bytes": peak}) + "\n")
    return file


@pytest.mark.parametrize(
    ("peaks", "grows"),
    [
        ([100, 500, *[1000] * 10], False),
        ([1000, 1003, 998, 1001, 999, 1002, 1000, 1004, 999], False),
        ([1000 + 50 * step for step in range(12)], True),
        ([1000] * 8 + [1200] * 4, True),
    ],
)
def test_growth_is_that_of_the_last_third(tmp_path, peaks, grows):
    (found,) = memory_of_trainings(log(tmp_path, peaks), tmp_path / "run")
    assert (found.training, found.steps, found.grows) == ("distil/seed-0", len(peaks), grows)


def test_a_training_that_went_on_is_judged_by_its_last_process(tmp_path):
    log(tmp_path, [10, 10, 10], process=1)
    (found,) = memory_of_trainings(log(tmp_path, [1000] * 6, process=2), tmp_path / "run")
    assert (found.steps, found.grows) == (6, False)


def test_other_runs_and_short_trainings_are_left_out(tmp_path):
    assert memory_of_trainings(log(tmp_path, [1, 2]), tmp_path / "run") == []
    assert memory_of_trainings(log(tmp_path, [1] * 9), tmp_path / "another") == []


def test_memory_is_read():
    assert peak_since_last_call() > 2**20


def test_a_training_that_is_done_again_is_judged_by_the_last_time(tmp_path):
    file = log(tmp_path, [1000 + 50 * step for step in range(9)])
    (found,) = memory_of_trainings(file, tmp_path / "run", tmp_path / "again")
    assert found.grows
    log(tmp_path, [1400] * 9, run="again")
    (found,) = memory_of_trainings(file, tmp_path / "run", tmp_path / "again")
    assert not found.grows
