"""The table of runs: one line for each, however long its verdict is."""

import pytest

from potstill.cli import runs
from potstill.cli.runs import LONGEST, runs_table
from potstill.pipeline.runs import RunSummary


def test_a_line_for_each_run_and_one_for_all(monkeypatch, tmp_path):
    found = [
        RunSummary("quickstart", "Distillation helped", "prune layers", 81_419_904, "2026-11-28", 3_000_000_000),
        RunSummary("toy", "stopped in capture", "scratch", 37_792, "2026-11-27", 1_000_000_000),
    ]
    monkeypatch.setattr(runs, "runs_in", lambda folder: found)
    head, first, second, total = runs_table(tmp_path).splitlines()
    assert head.split() == ["run", "verdict", "student", "parameters", "date", "disk"]
    assert first.endswith("81.4M       2026-11-28  3.0 GB")
    assert second.endswith("37,792      2026-11-27  1.0 GB")
    assert total.split() == ["in", "all", "4.0", "GB"]


@pytest.mark.parametrize("said", ["x" * 500, "a\nb\n" * 200])
def test_a_broken_folder_has_one_line(monkeypatch, tmp_path, said):
    monkeypatch.setattr(runs, "runs_in", lambda folder: [RunSummary("a", said)])
    _, line, _ = runs_table(tmp_path).splitlines()
    assert len(line) < LONGEST + 45
    assert "…" in line


def test_no_runs(call, tmp_path):
    (tmp_path / "runs").mkdir()
    assert call("runs") == (0, "runs has no run folders; `potstill run RECIPE` makes one\n", "")


def test_no_folder(call):
    code, out, err = call("runs", "nowhere")
    assert (code, out) == (2, "")
    assert err == (
        "potstill: nowhere cannot be read (no such file or directory); name a folder with run folders, such as runs\n"
    )
