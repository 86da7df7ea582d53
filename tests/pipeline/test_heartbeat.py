"""The heartbeat says at which step a run is; after a stop it says so, and after the end it is gone."""

import json
import threading

import pytest

from potstill.cost import Cost
from potstill.pipeline import heartbeat
from potstill.pipeline.heartbeat import RUNNING, Heartbeat
from potstill.recipe.step import Step

FORECASTS = {"distil/seed-0": {"seconds": [1.0, 2.0, 3.0], "kwh": None, "disk_bytes": [1, 2, 3]}}


def memory():
    return {"host": 5, "device": None}


def told(folder):
    return json.loads((folder / RUNNING).read_text())


def test_step_cost_memory_and_forecasts_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS_BETWEEN_BEATS", 0.001)
    monkeypatch.setattr(heartbeat, "BEATS_BETWEEN_COSTS", 1)
    asked = threading.Event()

    def cost():
        asked.set()
        return Cost(3.0, 0.5, None, "measured: x")

    with Heartbeat(tmp_path, memory) as heart:
        heart.forecast(FORECASTS)
        heart.begin(Step("distil", 0), cost)
        asked.wait()
        while "cost" not in (seen := told(tmp_path)):
            pass
        assert seen["step"] == "distil/seed-0"
        assert seen["cost"]["kwh"] == 0.5
        assert seen["memory"] == {"host": 5, "device": None}
        assert seen["forecasts"] == {"distil/seed-0": {"seconds": [1.0, 2.0, 3.0], "kwh": None}}
    assert not (tmp_path / RUNNING).exists()


def test_a_step_that_begins_is_told_at_once_whatever_is_read_of_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS_BETWEEN_BEATS", 0.001)
    monkeypatch.setattr(heartbeat, "BEATS_BETWEEN_COSTS", 1)
    reads, goes_on = threading.Event(), threading.Event()

    def slow_cost():
        reads.set()
        goes_on.wait()
        return Cost(3.0, 0.5, None, "")

    with Heartbeat(tmp_path, memory) as heart:
        heart.begin(Step("distil", 0), slow_cost)
        reads.wait()
        heart.begin(Step("control", 0), lambda: Cost(1.0, None, None, ""))
        assert told(tmp_path)["step"] == "control/seed-0"
        goes_on.set()
        while "cost" not in (seen := told(tmp_path)):
            pass
        assert (seen["step"], seen["cost"]["kwh"]) == ("control/seed-0", None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_stop_is_told(tmp_path, error):
    def work():
        with Heartbeat(tmp_path, memory) as heart:
            heart.begin(Step("corpus"), lambda: Cost(1.0, None, None, ""))
            raise error

    with pytest.raises(error):
        work()
    assert told(tmp_path)["stopped"] is True


def test_a_disk_that_takes_nothing_does_not_stop_the_work(tmp_path):
    with Heartbeat(tmp_path / "missing", memory):
        pass
