"""The run on a GPU, rehearsed on a CPU in small: its parts, its one file of results, and a run that is cut off."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_profile, memory
from benchmarks.aims import AIMS, Measured
from benchmarks.run import Settings
from benchmarks.table import Table
from benchmarks.timing import Ratio


def toy_section(settings: Settings) -> Iterator[gpu.Found]:
    table = Table("A table", ("what", "how much"))
    table.add("a loss", "1.0")
    yield [table], [Measured("head, bf16", Ratio(1.2, 1.1), "here"), Measured("memory", 3.0, "there")]


def failing_section(settings: Settings) -> Iterator[gpu.Found]:
    raise RuntimeError("this peer does not run here")


def endless() -> Iterator[int]:
    yield 1
    yield 2
    while True:
        try:
            json.dumps([])
        except Exception:  # noqa: BLE001 - as a section that takes every exception for a failing peer
            continue


def rehearsed(out: Path, *options: str) -> tuple[int, dict[str, Any]]:
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--small", "--out", str(out), *options])
    return int(ended.value.code or 0), json.loads(out.read_text())


@pytest.mark.slow
def test_a_rehearsal_proves_the_contract_and_fills_every_part(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "SECTIONS", {"failing": failing_section, "toy": toy_section})
    code, results = rehearsed(tmp_path / "new" / "gpu.json")
    parts = ["machine", "contract", "section failing", "contract, compiled", "section toy", "profile"]
    assert list(results) == parts
    laws = results["contract"]["result"] | results["contract, compiled"]["result"]
    assert code == 0
    assert all(law["holds"] for law in laws.values()), laws
    assert {"chunked = naive, jsd, bf16", "captured = live", "one batch = accumulated"} <= laws.keys()
    assert {"compiled = naive, forward_kl, fp32", "compiled = naive, forward_kl, bf16"} <= laws.keys()
    assert results["section failing"]["failed"] == "RuntimeError: this peer does not run here"
    assert results["section toy"]["result"]["figures"] == [
        {"aim": "head, bf16", "where": "here", "median": 1.2, "best": 1.1},
        {"aim": "memory", "where": "there", "median": 3.0},
    ]
    assert "| a loss | 1.0" in results["section toy"]["result"]["tables"][0]
    profile = results["profile"]["result"]
    assert profile["tokens_per_second"] > 0
    assert profile["steps"] >= gpu_profile.WINDOWS * (gpu_profile.PROFILED + 1)
    assert 0 <= profile["idle"] < 1
    assert len(profile["top"]) > 5
    # The loader alone, in the same process here, looks for positions: one list each.
    assert profile["waits_a_step"]["aten::nonzero"] == 3


@pytest.mark.slow
def test_a_rehearsal_runs_every_section_of_a_gpu(tmp_path: Path, monkeypatch: Any) -> None:
    # As on a GPU, in this process.
    monkeypatch.setattr(memory, "_measured_apart", memory._measured_here)
    monkeypatch.setattr(memory, "VOCABULARY", 4096)
    # Uncompiled: another test compiles, and here each kind of loss would take seconds.
    with torch.compiler.set_stance("force_eager"):
        code, results = rehearsed(tmp_path / "gpu.json")
    assert code == 0
    assert not {name: part for name, part in results.items() if part.keys() & {"failed", "left_out", "cut_off"}}
    assert {f"section {name}" for name in gpu.SECTIONS} < results.keys()
    measured = {one["aim"] for part in results.values() for one in part["result"].get("figures", ())}
    assert {aim.key for aim in AIMS if aim.gpu} <= measured, "each aim of a GPU is measured there"
    tables = [table for part in results.values() for table in part["result"].get("tables", ())]
    assert not [table for table in tables if "failed" in table]


@pytest.mark.parametrize("broken", ["contract", "compiled_contract"])
def test_a_broken_law_ends_with_an_error_after_all_parts(tmp_path: Path, monkeypatch: Any, broken: str) -> None:
    for name in ("contract", "compiled_contract"):
        laws = {"one = other": {"holds": name != broken}, "same = same": {"holds": True}}
        monkeypatch.setattr(gpu, name, lambda *_, laws=laws: laws)
    monkeypatch.setattr(gpu, "SECTIONS", {})
    monkeypatch.setattr(gpu, "profiled_training", lambda *_: {})
    code, results = rehearsed(tmp_path / "gpu.json")
    assert code == 1
    assert "profile" in results


def test_a_law_that_could_not_be_shown_ends_with_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "contract", lambda *_: {"one = other": {"holds": True}})
    monkeypatch.setattr(gpu, "compiled_contract", lambda *_: {}["no compiler"])
    monkeypatch.setattr(gpu, "SECTIONS", {})
    monkeypatch.setattr(gpu, "profiled_training", lambda *_: {})
    assert rehearsed(tmp_path / "gpu.json")[0] == 1


def test_a_part_without_time_is_left_out_and_what_was_measured_stays(tmp_path: Path) -> None:
    run = gpu.Run(tmp_path / "gpu.json", 600)
    run.part("first", lambda: [1])
    run.seconds = 0
    run.part("second", lambda: [2])
    results = json.loads(run.out.read_text())
    assert results["first"]["result"] == 1
    assert results["second"] == {"left_out": "no time was left"}


def test_a_part_that_takes_too_long_is_stopped_and_keeps_what_it_has(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "LEAST", 0)
    run = gpu.Run(tmp_path / "gpu.json", 0.2)
    run.part("endless", endless)
    part = json.loads(run.out.read_text())["endless"]
    assert part["result"] == 2
    assert part["cut_off"].startswith("not finished after")


def test_a_part_without_any_result_in_its_time_is_left_out(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "LEAST", 0)
    monkeypatch.setattr(gpu, "MOST", {"slow": 0.1})
    run = gpu.Run(tmp_path / "gpu.json", 60)
    run.part("slow", lambda: [signal.pause()])
    assert json.loads(run.out.read_text())["slow"]["left_out"] == "not finished after 0 s"


def test_a_run_that_is_killed_in_a_part_says_so(tmp_path: Path) -> None:
    def work() -> Iterator[int]:
        yield 1
        seen.append(json.loads(run.out.read_text())["killed"])

    seen: list[Any] = []
    run = gpu.Run(tmp_path / "gpu.json", 60)
    run.part("killed", work)
    assert seen == [{"result": 1, "cut_off": "not finished"}]
    assert json.loads(run.out.read_text())["killed"].keys() == {"result", "seconds"}


def test_one_part_is_measured_again_and_the_others_stay(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "SECTIONS", {"toy": toy_section})
    out = tmp_path / "gpu.json"
    out.write_text(json.dumps({"section toy": {"failed": "before"}, "contract": {"result": {"law": {"holds": True}}}}))
    code, results = rehearsed(out, "--only", "section toy")
    assert code == 0
    assert "figures" in results["section toy"]["result"]
    assert results["contract"] == {"result": {"law": {"holds": True}}}


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match="no part 'loss'; the parts are contract, section memory, contract, compiled, "
    ):
        gpu.main(["--small", "--out", str(tmp_path / "gpu.json"), "--only", "loss"])


def test_a_machine_without_a_gpu_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no GPU; rehearse with --small"):
        gpu.main(["--out", str(tmp_path / "gpu.json")])
