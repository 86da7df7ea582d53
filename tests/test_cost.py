"""Costs add up and say how they were measured; a failing meter never stops the work."""

import json
import logging
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest

from potstill import cost
from potstill.cost import Cost, Expense, measure

RAPL = "measured: CPU, by RAPL"
MEMORY = "estimated: memory, from its size"
ABSENT = "not measured: codecarbon is not installed"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A meter starts late on a busy machine."""
    monkeypatch.setattr(cost, "SECONDS_TO_START", 1000.0)


def first_reading(meter) -> Cost:
    """The cost at the first moment at which the meter has read some energy."""
    while not (read := meter.cost).kwh:
        pass
    return read


def test_costs_of_an_interrupted_stage_add_up():
    total = Cost(10, 0.1, 0.05, f"{RAPL}; {MEMORY}") + Cost(5, 0.2, 0.1, f"{RAPL}; {MEMORY}")
    assert total == Cost(15, pytest.approx(0.3), pytest.approx(0.15), f"{RAPL}; {MEMORY}")


def test_an_unmeasured_part_stays_visible_in_the_sum():
    total = Cost(10, 0.1, 0.05, RAPL) + Cost(5, None, None, ABSENT)
    assert total == Cost(15, 0.1, 0.05, f"{RAPL}; {ABSENT}")
    assert (Cost(1, None, None, ABSENT) + Cost(2, None, None, ABSENT)) == Cost(3, None, None, ABSENT)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (RAPL, "measured"),
        (f"{RAPL}; {MEMORY}; CO2e: France, 56 g/kWh", "partly estimated"),
        (MEMORY, "estimated"),
        (ABSENT, "not measured"),
        (f"{RAPL}; {ABSENT}", "partly not measured"),
    ],
)
def test_an_estimate_is_never_called_a_measurement(method, kind):
    assert Cost(1, 0.1, 0.1, method).kind == kind


def test_a_cost_survives_json():
    cost = Cost(1.5, None, None, ABSENT)
    assert Cost.from_dict(json.loads(json.dumps(cost.to_dict()))) == cost


def test_real_metering_leaves_no_file_no_word_and_no_thread(tmp_path, monkeypatch, capfd, caplog):
    pytest.importorskip("codecarbon")
    monkeypatch.chdir(tmp_path)
    with measure("FRA") as meter:
        half = first_reading(meter)
    assert 0 < half.seconds <= meter.cost.seconds
    assert meter.cost.kwh is not None
    assert 0 < half.kwh <= meter.cost.kwh
    assert meter.cost.kg_co2e == pytest.approx(meter.cost.kwh * 0.056, rel=0.5)
    assert "France" in meter.cost.method
    assert meter.cost.kind != "measured", "memory is always estimated"
    assert meter.cost == meter.cost
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [thread for thread in threading.enumerate() if thread.name == "potstill-meter"]


def test_without_a_country_the_grid_is_the_worlds_and_that_is_said():
    pytest.importorskip("codecarbon")
    with measure() as meter:
        first_reading(meter)
    assert "the world's average grid" in meter.cost.method


def fake(monkeypatch, tracker) -> None:
    module = ModuleType("codecarbon")
    module.OfflineEmissionsTracker = tracker
    monkeypatch.setitem(sys.modules, "codecarbon", module)


def test_work_goes_on_where_codecarbon_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with measure() as meter:
        pass
    assert meter.cost.kwh is None
    assert meter.cost.method == ABSENT


@pytest.mark.parametrize("breaks", ["start", "flush", "stop"])
def test_work_goes_on_where_codecarbon_breaks(monkeypatch, breaks):
    def broken():
        raise RuntimeError("no such counter")

    steps = {name: broken if name == breaks else lambda: None for name in ("start", "flush", "stop")}
    fake(monkeypatch, lambda **_: SimpleNamespace(**steps))
    with measure() as meter:
        assert meter.cost.kwh is None
    assert meter.cost.kwh is None
    assert meter.cost.method.startswith("not measured: codecarbon")


def test_a_meter_that_hangs_is_left_behind(monkeypatch):
    go, stopped = threading.Event(), threading.Event()
    fake(monkeypatch, lambda **_: SimpleNamespace(start=go.wait, stop=stopped.set, flush=lambda: None))
    monkeypatch.setattr(cost, "SECONDS_TO_START", 0.05)
    with measure() as meter:
        pass
    assert "did not start" in meter.cost.method
    go.set()
    assert stopped.wait(), "a late start is stopped"


def test_the_cost_is_known_when_the_work_fails():
    with pytest.raises(KeyboardInterrupt), measure() as meter:
        raise KeyboardInterrupt
    assert meter.cost.seconds >= 0
    assert meter.cost.method


class GPU:
    """Named as CodeCarbon's, as the others here."""


class CPU:
    def __init__(self, mode: str, tdp: float = 65.0) -> None:
        self._mode, self._tdp = mode, tdp


class RAM:
    pass


@pytest.mark.parametrize(
    ("hardware", "said"),
    [
        ([RAM(), CPU("intel_rapl"), GPU()], f"{RAPL}; measured: GPU, by its own meter; {MEMORY}; grid"),
        ([RAM(), CPU("cpu_load")], f"estimated: CPU, from its load and a rated power of 65 W; {MEMORY}; grid"),
        ([CPU("constant")], "estimated: CPU, from a constant; grid"),
        ([], "estimated: in a way this version of CodeCarbon does not tell; grid"),
    ],
)
def test_each_part_says_how_it_is_known(hardware, said):
    assert cost._method(hardware, "grid") == said


def test_energy_per_1000_tokens_is_of_those_written_or_else_of_those_read():
    spent = Cost(9.0, 0.002, 0.001, RAPL)
    assert Expense("continuations-facts", "student-0", spent, 5000, 400).kwh_per_1000 == pytest.approx(0.005)
    assert Expense("held-out-text", "student-0", spent, 4000, 0).kwh_per_1000 == pytest.approx(0.0005)
    assert Expense("held-out-text", "student-0", Cost(9.0, None, None, ABSENT), 4000, 0).kwh_per_1000 is None
    assert Expense("held-out-text", "student-0", spent, 0, 0).kwh_per_1000 is None


def test_an_expense_survives_json():
    expense = Expense("continuations-facts", "student-0", Cost(9.0, 0.002, 0.001, MEMORY), 5000, 400)
    told = json.loads(json.dumps(expense.to_dict()))
    assert Expense.from_dict(told) == expense
    assert told["kind"] == "estimated"


def test_the_machines_country_is_that_of_codecarbons_own_settings(monkeypatch, tmp_path):
    pytest.importorskip("codecarbon")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODECARBON_COUNTRY_ISO_CODE", "FRA")
    with measure() as meter:
        first_reading(meter)
    assert "CO2e: France" in meter.cost.method


def test_a_share_of_an_unknown_energy_is_unknown():
    whole = Cost(8.0, 4.0, None, "measured: CPU")
    assert whole.share(0.25) == Cost(2.0, 1.0, None, "measured: CPU")
