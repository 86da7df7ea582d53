"""The page has every part, and says of a part that it was not run yet; the recipes are valid."""

import pytest

from experiments.served import CONTROL, HERE, LIVE, METRICS, SERVED, SHARED, Found, judged, page
from potstill.metrics.results import Result, Spread
from potstill.recipe import load_recipe

SPEED = {"capture": [90.0, 95.0, 99.0], "plain": [100.0, 100.0, 100.0]}
KILLED = {
    "at": [1, 5],
    "total": 10,
    "differing": [],
    "batched": {"same_ids": 1.0, "mean": 0.001, "largest": 0.09, "mean_tail": 0.0, "records": 0.02},
}
SERVER = {
    "version": "0.32.0",
    "noise": {"mean": 1e-6, "largest": 1e-5},
    "traffic": {"requests": 130, "repeated": 1, "bytes_received": 51_200_000, "tokens_read": 12_800},
    "bytes_per_token": 160.2,
    "seconds": 61.0,
    "apart": {"same_ids": 0.9999, "mean": 0.001, "largest": 0.09, "mean_tail": 1e-6, "records": 0.02},
}


def rows():
    several = {"student": 1.0, "control": 2.0}
    found = [
        Result(model, metric, value, 0.0, 9.0, 40, Spread((value, value + 0.1, value + 0.2)))
        for model, value in several.items()
        for metric in METRICS
    ]
    single = {"teacher": 0.5, "start": 3.0, "here-0": 1.0, "here-1": 1.1, "here-2": 1.3}
    single |= {"vllm-0": 1.5, "vllm-1": 1.6, "vllm-2": 1.7}
    found += [Result(model, metric, value, 0.0, 9.0, 40) for model, value in single.items() for metric in METRICS]
    return [*found, Result("student", "perplexity", 9.0, 0.0, 9.0, 40)]


def test_each_student_has_the_values_of_its_seeds():
    models, students = judged(rows())
    assert models == {"teacher": [0.5] * len(METRICS), "start": [3.0] * len(METRICS)}
    assert list(students) == [LIVE, CONTROL, HERE, SERVED]
    assert [*students[LIVE]["loss"]] == [1.0, 1.1, 1.2]
    assert students[HERE]["agreement"] == [1.0, 1.1, 1.3]
    assert students[SERVED]["loss"] == [1.5, 1.6, 1.7]


def test_the_page_of_a_whole_experiment_has_every_part():
    models, students = judged(rows())
    text = page(Found(SERVER, KILLED, SPEED, models, students))
    assert "not run yet" not in text
    assert f"| {SERVED} | loss | +0.5000, +0.5000, +0.5000 | +0.5000 |" in text
    assert f"| {HERE} | loss | +0.0000, +0.0000, +0.1000 |" in text
    assert f"| {SERVED} | loss | +0.5000, +0.5000, +0.4000 |" in text
    assert "4,000 bytes a token" in text
    assert "killed 2 times (SIGKILL), when it had written\n10%, 50% of its records" in text
    assert "**the same bytes in every file**" in text
    assert "**0.95** of the loop" in text


def test_other_bytes_after_a_kill_are_told():
    text = page(Found(killed=KILLED | {"differing": ["00000.records"]}))
    assert "**other bytes in 00000.records**" in text
    assert text.count("not run yet") == 3


@pytest.mark.parametrize("name", SHARED)
def test_the_settings_are_keys_of_a_recipe(name):
    value = "null" if SHARED[name] is None else str(SHARED[name]).lower()
    load_recipe("quickstart", [f"{name}={value}"])
