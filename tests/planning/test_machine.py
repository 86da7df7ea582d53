"""Machines that are described, and what is wrong with a description."""

import pytest

from potstill.planning import machine as module
from potstill.planning.machine import described_machines, machine_named

WIDTHS = (32, 64)


def test_the_shipped_machines_are_whole():
    known = described_machines()
    assert {"cpu-laptop", "rtx-3060-12gb", "a100-80gb", "h100-80gb", "h100-80gb-x8"} <= set(known)
    for one in known.values():
        assert one.memory
        assert set(one.rates) == {"fp32", "bf16"}
        assert one.bandwidth is not None
        assert one.notes == ()
    assert known["h100-80gb-x8"].devices == 8


def test_a_machine_in_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("{device_memory_gib: 24, tflops: {bf16: 100}, price_per_hour: 2, currency: EUR}")
    found = machine_named(str(file), tmp_path, WIDTHS)
    assert (found.name, found.kind, found.memory, found.price, found.currency) == ("mine", "cuda", 24 * 2**30, 2, "EUR")
    assert list(found.rates) == ["bf16"]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{price_per_hour: 2}", "`currency`"),
        ("{tflops: {int8: 2}}", "`tflops.int8`"),
        ("{memory: 3}", "`memory`"),
        ("{device_memory_gib: much}", "`device_memory_gib`"),
        ("{device_memory_gib: -1}", "`device_memory_gib`"),
        ("[1, 2", "cannot be read"),
        ("just words", "bad.yaml"),
    ],
)
def test_what_is_wrong_with_a_file_is_a_note(tmp_path, text, told):
    (tmp_path / "bad.yaml").write_text(text)
    found = machine_named(str(tmp_path / "bad.yaml"), tmp_path, WIDTHS)
    assert len(found.notes) == 1
    assert told in found.notes[0]
    assert found.price is None


def test_a_machine_nobody_described_names_the_known_ones(tmp_path):
    found = machine_named("h100-80g", tmp_path, WIDTHS)
    assert "did you mean `h100-80gb`?" in found.notes[0]
    assert "rtx-3060-12gb" in found.notes[0]
    assert found.memory is None


def test_this_machine_is_measured(tmp_path):
    found = machine_named(None, tmp_path / "not" / "there", WIDTHS)
    assert found.memory > 2**28
    assert found.free_disk > 0
    assert found.rates["fp32"].low > 0
    assert found.baseline.low > 2**26
    assert found.is_here


def test_the_disk_of_the_hubs_cache_counts_where_it_is_another_one(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    assert machine_named(None, tmp_path / "run", WIDTHS).free_cache is None
    disks = {"run": (1, 5e9), "hub": (2, 7e9)}
    monkeypatch.setattr(module, "_disk_of", lambda folder: disks[folder.name])
    found = machine_named(None, tmp_path / "run", WIDTHS)
    assert (found.free_disk, found.free_cache) == (5e9, 7e9)
