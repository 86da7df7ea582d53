import json

import pytest

from potstill.cli.export import export
from potstill.errors import UserError
from potstill.export import formats
from potstill.files.atomic import read_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.status import describe
from tiny import toy_recipe

FORMATS = ("gguf:F16", "merged", "int8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    run = Run(folder / "toy")
    run_recipe(toy_recipe(folder, "control=null", f"export.to={json.dumps(FORMATS)}"), run)
    return run


def _entries(run):
    return read_json(run.path("export") / "exports.json")


def test_every_format_has_its_files_and_figures(run):
    found = _entries(run)
    assert [one["format"] for one in found] == list(FORMATS)
    for one in found:
        assert one["refused"] is None
        folder = run.path("export") / "student" / one["format"].replace(":", "-")
        assert all((folder / file).exists() for file in one["files"])
        assert one["experiment"] == "student"
        assert one["kl"]["low"] <= one["kl"]["value"] <= one["kl"]["high"]
        assert one["loss"]["n"] == one["documents"] == one["loss_difference"]["n"]
        assert one["decode_tokens_per_second"] > 0
    assert [one["files"] for one in found] == [["toy-F16.gguf", "Modelfile"], ["model"], ["model"]]


def test_what_keeps_the_weights_is_the_student(run):
    gguf, merged, int8 = _entries(run)
    assert merged["kl"]["value"] == merged["loss_difference"]["difference"] == 0
    assert merged["answers_equal"] == merged["answers"]
    assert gguf["kl"]["value"] < 1e-4
    assert gguf["kl"]["value"] < int8["kl"]["value"]
    assert gguf["tokens_equal"] > 0
    assert int8["bytes"] < merged["bytes"]


def test_the_report_has_a_line_for_each_file(run):
    page = (run.path("report") / "index.html").read_text(encoding="utf-8")
    assert all(f'<th scope="row">{name}</th>' in page for name in FORMATS)
    assert "llama.cpp (xllamacpp" in page


def test_a_format_is_added_to_a_finished_run_and_the_others_stay(run):
    before = (run.path("export") / "student" / "merged" / "manifest.json").read_bytes()
    assert export(run.folder, "gguf:Q8_0", []) == []
    assert [one["format"] for one in _entries(run)] == [*FORMATS, "gguf:Q8_0"]
    assert (run.path("export") / "student" / "merged" / "manifest.json").read_bytes() == before
    assert "export/student/gguf-Q8_0 done" in " ".join(describe(run.folder).split())


@pytest.mark.parametrize(
    ("to", "experiments", "message"),
    [
        ("gguf:Q9", [], "`export.to.*Q9"),
        ("merged", ["other"], "`export.experiments`: 'other' is not one of `experiments`: there are none"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(run, to, experiments, message):
    with pytest.raises(UserError, match=message):
        export(run.folder, to, experiments)


def test_a_file_that_fails_is_not_kept_and_the_run_goes_on(tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("llama.cpp cannot open it")

    monkeypatch.setattr(formats, "opened", fail)
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "control=null", "capture=null", 'export.to=["gguf:F16"]'), run)
    (entry,) = _entries(run)
    assert entry["refused"] == "llama.cpp cannot open it"
    assert not list(run.folder.rglob("*.gguf"))
    assert "refused: llama.cpp cannot open it" in (run.path("report") / "index.html").read_text(encoding="utf-8")


def test_an_unfinished_run_is_not_trained_on_the_quiet(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "control=null", "capture=null"), run, "student")
    with pytest.raises(UserError, match="is not finished: `distil/seed-0` is not done"):
        export(run.folder, "merged", [])
