"""Traffic is added up over attempts, of which all but the last were killed."""

import json

import pytest

from potstill.servers.traffic import SECONDS_BETWEEN_SAVES, Traffic, TrafficFile, kept_traffic


def test_attempts_are_added_up(tmp_path):
    file = tmp_path / "step" / "traffic.json"
    for _ in range(3):
        TrafficFile(file).save(Traffic(2, 1, 100, 30, 4))
    assert kept_traffic(file) == Traffic(6, 3, 300, 90, 12)
    assert TrafficFile(file).total(Traffic(requests=1)).requests == 7


def test_a_moment_after_a_save_nothing_is_saved(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("potstill.servers.traffic.time.monotonic", lambda: now[0])
    kept = TrafficFile(tmp_path / "traffic.json")
    kept.note(Traffic(1))
    kept.note(Traffic(2))
    assert kept_traffic(tmp_path / "traffic.json").requests == 1
    now[0] += SECONDS_BETWEEN_SAVES
    kept.note(Traffic(3))
    assert kept_traffic(tmp_path / "traffic.json").requests == 3


@pytest.mark.parametrize("content", ["{", "[]", "3", json.dumps({"other": 1})])
def test_a_damaged_file_counts_nothing_and_stops_nothing(tmp_path, content):
    file = tmp_path / "traffic.json"
    file.write_text(content)
    TrafficFile(file).save(Traffic(5))
    assert kept_traffic(file) == Traffic(5)
