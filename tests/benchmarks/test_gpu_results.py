"""The results of a GPU run, read for the page: a whole run, a run that was cut off, and the committed file."""

import json
from pathlib import Path
from typing import Any

from benchmarks.aims import AIMS, Measured
from benchmarks.gpu_results import GpuResults
from benchmarks.timing import Ratio

COMMITTED = Path(__file__).parents[2] / "docs" / "performance-gpu.json"
PROFILE = {"title": "tiny", "tokens_per_second": 12345.6, "seconds_a_step": 0.2, "waits_a_step": {"read": 1.0}}


def results(tmp_path: Path, **parts: Any) -> GpuResults:
    machine = {"result": {"processor": "a GPU", "versions": "torch 2"}}
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({"machine": machine, **parts}))
    return GpuResults.read(file)


def test_figures_and_tables_are_those_of_the_run(tmp_path: Path) -> None:
    ratio = {"aim": "head, bf16", "where": "JSD", "median": 1.5, "best": 1.4}
    number = {"aim": "memory", "where": "KL", "median": 300.0}
    section = {"result": {"tables": ["### A table"], "figures": [ratio, number]}}
    laws = {"result": {"one = other": {"holds": True}, "captured = live": {"holds": False}}}
    given = {"section loss": section, "contract": laws, "profile": {"result": PROFILE}}
    found = results(tmp_path, **given)
    assert found.measured == [Measured("head, bf16", Ratio(1.5, 1.4), "JSD"), Measured("memory", 300.0, "KL")]
    text = found.markdown()
    assert "- Contract: 1 of 2 laws hold; broken: captured = live" in text
    assert "### A table" in text
    assert "12,346 tokens/s" in text
    assert "`read` 1" in text


def test_a_part_without_a_result_is_named_with_the_reason(tmp_path: Path) -> None:
    failed, left_out = {"failed": "RuntimeError: why"}, {"left_out": "no time was left"}
    text = results(tmp_path, contract=failed, profile=left_out).markdown()
    assert "- Contract: RuntimeError: why" in text
    assert "- Profile: no time was left" in text


def test_what_a_part_that_was_cut_off_has_is_on_the_page(tmp_path: Path) -> None:
    part = {"result": {"tables": ["### A table"], "figures": []}, "cut_off": "not finished after 80 s"}
    text = results(tmp_path, **{"section trainers": part}).markdown()
    assert "- Section trainers: not finished after 80 s" in text
    assert "### A table" in text


def test_the_laws_of_both_parts_of_the_contract_are_counted_together(tmp_path: Path) -> None:
    holds, broken = {"result": {"a = b": {"holds": True}}}, {"result": {"a = c": {"holds": False}}}
    text = results(tmp_path, **{"contract": holds, "contract, compiled": broken}).markdown()
    assert "- Contract: 1 of 2 laws hold; broken: a = c" in text


def test_the_idle_time_is_told_where_it_was_measured(tmp_path: Path) -> None:
    assert "The GPU ran nothing in 12% of this time." in (
        results(tmp_path, profile={"result": PROFILE | {"idle": 0.123}}).markdown()
    )
    assert "ran nothing" not in results(tmp_path, profile={"result": PROFILE}).markdown()


def test_without_a_run_there_is_no_part_of_the_page() -> None:
    assert GpuResults().markdown() == ""
    assert GpuResults().measured == []


def test_the_committed_results_are_read_and_hold_the_contract() -> None:
    found = GpuResults.read(COMMITTED)
    assert {one.key for one in found.measured} <= {aim.key for aim in AIMS}
    assert all(law["holds"] for law in found.parts["contract"]["result"].values())
