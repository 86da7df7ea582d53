"""The run on a GPU, rehearsed on a CPU in small: its parts, its one file of results, and a run that is cut off."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.aims import Measured
from benchmarks.run import Settings
from benchmarks.table import Table
from benchmarks.timing import Ratio


def toy_section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    table = Table("A table", ("what", "how much"))
    table.add("a loss", "1.0")
    return [table], [Measured("head, bf16", Ratio(1.2, 1.1), "here"), Measured("memory", 3.0, "there")]


def failing_section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    raise RuntimeError("this peer does not run here")


def endless_section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    while True:
        try:
            json.dumps([])
        except Exception:  # noqa: BLE001 - as a section that takes every exception for a failing peer
            continue


def rehearsed(out: Path, *options: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--small", "--out", str(out), *options])
    return int(ended.value.code or 0), json.loads(out.read_text())


def test_a_rehearsal_proves_the_contract_and_fills_every_part(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "SECTIONS", {"failing": failing_section, "toy": toy_section})
    code, results = rehearsed(tmp_path / "new" / "gpu.json")
    assert list(results) == ["machine", "contract", "section failing", "section toy", "profile"]
    laws = results["contract"]["result"]
    assert code == 0
    assert all(law["holds"] for law in laws.values()), laws
    assert {"chunked = naive, jsd, bf16", "captured = live", "one batch = accumulated"} <= laws.keys()
    assert results["section failing"]["failed"] == "RuntimeError: this peer does not run here"
    assert results["section toy"]["result"]["figures"] == [
        {"aim": "head, bf16", "where": "here", "median": 1.2, "best": 1.1},
        {"aim": "memory", "where": "there", "median": 3.0},
    ]
    assert "| a loss | 1.0" in results["section toy"]["result"]["tables"][0]
    profile = results["profile"]["result"]
    assert profile["tokens_per_second"] > 0
    assert len(profile["top"]) > 5
    # The loader alone, in the same process here, looks for positions: one list each.
    assert profile["waits_a_step"]["aten::nonzero"] == 3


def test_a_broken_law_ends_with_an_error_after_all_parts(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "contract", lambda *_: {"one = other": {"holds": False}, "same = same": {"holds": True}})
    monkeypatch.setattr(gpu, "SECTIONS", {})
    monkeypatch.setattr(gpu, "profiled_training", lambda *_: {})
    code, results = rehearsed(tmp_path / "gpu.json")
    assert code == 1
    assert "profile" in results


def test_a_part_without_time_is_left_out_and_what_was_measured_stays(tmp_path: Path) -> None:
    run = gpu.Run(tmp_path / "gpu.json", 600)
    run.part("first", lambda: 1)
    run.seconds = 0
    run.part("second", lambda: 2)
    results = json.loads(run.out.read_text())
    assert results["first"]["result"] == 1
    assert results["second"] == {"left_out": "no time was left"}


def test_a_part_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "LEAST", 0)
    run = gpu.Run(tmp_path / "gpu.json", 0.2)
    run.part("endless", lambda: endless_section(None))  # type: ignore[arg-type]
    assert json.loads(run.out.read_text())["endless"]["left_out"].startswith("not finished")


def test_one_part_is_measured_again_and_the_others_stay(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "SECTIONS", {"toy": toy_section})
    out = tmp_path / "gpu.json"
    out.write_text(json.dumps({"section toy": {"failed": "before"}, "contract": {"result": {"law": {"holds": True}}}}))
    code, results = rehearsed(out, "--only", "section toy")
    assert code == 0
    assert "figures" in results["section toy"]["result"]
    assert results["contract"] == {"result": {"law": {"holds": True}}}


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there is no part 'loss'; the parts are contract, section loss, "):
        gpu.main(["--small", "--out", str(tmp_path / "gpu.json"), "--only", "loss"])


def test_a_machine_without_a_gpu_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no GPU; rehearse with --small"):
        gpu.main(["--out", str(tmp_path / "gpu.json")])
