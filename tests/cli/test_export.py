import sys
from pathlib import Path

import pytest

from potstill.cli import export as exporting
from potstill.cli import main
from potstill.cli.export import _asked_for
from potstill.errors import UserError
from potstill.recipe import load_recipe


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["potstill", "export", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def test_a_run_folder_is_exported_as_asked(call, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(exporting, "export", lambda *given: asked.append(given) or [])
    assert call(str(tmp_path), "--to", "gguf:F16, merged", "--experiment", "one")[0] == 0
    assert call(str(tmp_path))[0] == 0
    assert asked == [(Path(tmp_path), "gguf:F16, merged", ["one"]), (Path(tmp_path), None, [])]


def test_a_refused_file_is_said_and_the_code_is_1(call, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "export", lambda *_: ["gguf:F16 of student: llama.cpp cannot open it"])
    code, _, err = call(str(tmp_path), "--to", "gguf:F16")
    assert (code, err) == (1, "potstill: refused: gguf:F16 of student: llama.cpp cannot open it\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quickstart", "--to", "merged"), "'quickstart' is no run folder"),
        (("quickstart", "--experiment", "one"), "'quickstart' is no run folder"),
        ((".", "--set", "seeds=[1]"), "whose recipe stays"),
        ((".", "--force"), "whose recipe stays"),
        ((".", "--to", "merged"), "is no run folder; `potstill run RECIPE` makes one"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(call, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*arguments)
    assert code == 2
    assert err.startswith("potstill: ")
    assert message in err
    assert err.count("\n") == 1


def test_formats_are_added_to_those_that_were_asked_for_before():
    first = _asked_for(load_recipe("quickstart"), "gguf:F16", [])
    assert first.export.to == ["gguf:F16"]
    assert _asked_for(first, "merged,gguf:F16", []).export.to == ["gguf:F16", "merged"]
    assert _asked_for(first, None, []) == first


def test_without_formats_the_default_ones_are_made():
    assert _asked_for(load_recipe("quickstart"), None, []).export.to[0] == "gguf:F16"


def test_an_unknown_format_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"^potstill export: `export\.to.*gguf:Q8_0"):
        _asked_for(load_recipe("quickstart"), "gguf:Q9", [])
