"""The printed results: tables, aims and the page."""

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.aims import AIMS, Measured, summary
from benchmarks.page import HEAD, page
from benchmarks.table import Table
from benchmarks.timing import Ratio, Times


def test_a_table_is_markdown() -> None:
    table = Table("Title", ("what", "how much"), "A note.")
    table.add("a loss", "1.0")
    assert table.markdown().splitlines() == [
        "### Title",
        "",
        "| what   | how much |",
        "| ------ | -------- |",
        "| a loss | 1.0      |",
        "",
        "A note.",
    ]


def test_a_ratio_is_formed_within_each_round() -> None:
    times = Times({"loss": [2.0, 40.0, 6.0], "a": [1.0, 10.0, 1.0], "b": [1.0, 10.0, 1.0]})
    ratio = times.ratio("loss", ["a", "b"])
    assert ratio == Ratio(median=2.0, best=1.0)
    assert times.fastest(["loss", "a"]) == "a"


def row(table: Table, what: str) -> list[str]:
    return list(next(cells for cells in table.rows if cells[0].startswith(what)))


def test_an_aim_is_judged_by_its_worst_case() -> None:
    measured = [
        Measured("head, fp32", Ratio(1.02, 1.01), "forward KL"),
        Measured("head, fp32", Ratio(1.30, 1.20), "JSD"),
        Measured("reader", 5.0, "read"),
        Measured("writer", 1.0, "write"),
    ]
    table = summary(measured, [])
    assert len(table.rows) == len(AIMS)
    assert row(table, "loss head")[2:5] == ["1.300 (1.200)", "**not reached**", "JSD"]
    assert row(table, "reader")[3] == "reached"
    assert row(table, "writer")[3] == "**not reached**"
    assert row(table, "default store, B")[2:5] == ["not measured", "", ""]
    assert row(table, "the same with JSD")[6] == "not measured"
    assert row(table, "default store, B")[5:7] == ["–", "–"]


def test_on_a_gpu_its_own_aims_count() -> None:
    on_gpu = [Measured("memory", 400.0, "JSD"), Measured("head, bf16", Ratio(1.4, 1.3), "JSD")]
    table = summary([Measured("memory", 200.0, "KL")], on_gpu)
    assert row(table, "transient")[2:] == ["200", "reached", "KL", "≤ 600", "400", "reached", "JSD"]
    assert [cells[7] for cells in table.rows if cells[6].startswith("1.400")] == ["**not reached**"]
    assert row(table, "loss head")[5:] == ["–", "–", "", ""]


def test_the_page_has_everything() -> None:
    text = page(["Machine: a"], summary([], []), [("The loss head", [Table("One", ("a", "b"))])], "## On a GPU")
    assert text.startswith("# Performance\n")
    assert text.endswith("## On a GPU\n")
    for part in ("## This run", "- Machine: a", "### What must be reached", "## The loss head", "### One"):
        assert part in text


def test_the_committed_page_has_the_head_of_today() -> None:
    committed = Path(__file__).parents[2] / "docs" / "performance.md"
    assert committed.read_text(encoding="utf-8").startswith(HEAD)


def test_an_unknown_section_is_named() -> None:
    with pytest.raises(SystemExit, match="there is no section 'losses'; the sections are loss, steps, "):
        main(["--only", "losses"])
