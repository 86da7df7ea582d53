"""Plan: an estimate before anything is spent."""

import sys

import pytest

from potstill.cli import main
from tiny import toy_overrides


def test_an_estimate_is_printed_and_nothing_is_captured(toy_folder, tmp_path, monkeypatch, capsys):
    sets = [part for override in toy_overrides("quickstart", toy_folder) for part in ("--set", override)]
    where = ["--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["potstill", "capture", "quickstart", *where, *sets, "--estimate"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert ended.value.code == 0
    assert last.startswith("smollm2: ")
    assert "bytes a token" in last
    assert not (tmp_path / "run" / "capture").exists()
