import json
import shutil

import pytest

import toy_chat_runs
from potstill.cli.export import export
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.export import formats
from potstill.export.held_out import NEW_TOKENS, PROMPTS, held_out_items
from potstill.files.atomic import read_json
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.status import describe
from potstill.pipeline.work import Work
from potstill.recipe.step import Step
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


def test_a_format_is_added_to_a_finished_run_and_the_others_stay(run, tmp_path):
    run = Run(shutil.copytree(run.folder, tmp_path / "toy"))
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


def test_conversations_are_read_by_the_template_of_the_run(tmp_path):
    run = Run(tmp_path / "toy")
    given = toy_chat_runs.recipe(tmp_path, "control=null", 'export.to=["gguf:F16"]', "experiments={one: {}, two: {}}")
    run_recipe(given.model_copy(update={"export": given.export.model_copy(update={"experiments": ["two"]})}), run)
    (entry,) = _entries(run)
    assert entry["refused"] is None
    assert entry["experiment"] == "student two"
    assert entry["kl"]["value"] < 1e-4
    assert entry["template_equal"] == 4
    assert "TEMPLATE" in (run.path("export") / "two" / "gguf-F16" / "Modelfile").read_text(encoding="utf-8")


def test_questions_are_read_as_they_were_asked(questions_recipe, questions_run):
    items = held_out_items(Work(questions_recipe, questions_run, Step("export", name="student/merged")))
    assert len(items.prompts) == min(PROMPTS, len(items.text.document_bytes))
    for sample, units in zip(items.text.samples, items.text.units, strict=True):
        assert len(units) == sum(label != IGNORE_INDEX for label in sample["labels"][1:])
        assert len(set(units)) == 1
    assert items.context >= max(map(len, items.prompts)) + NEW_TOKENS


@pytest.mark.parametrize("more", [[], ["student.quantization={load_in_8bit: true}"]], ids=["plain", "8 bits"])
def test_an_adapter_is_merged_into_the_weights_that_it_was_trained_on(tmp_path, more):
    run = Run(tmp_path / "toy")
    lora = "student.adapter={r: 4, target_modules: [q_proj, down_proj], init_lora_weights: false}"
    given = toy_recipe(tmp_path, "control=null", "capture=null", lora, "export.to=[merged]", *more)
    run_recipe(given, run)
    (entry,) = _entries(run)
    assert entry["refused"] is None
    # An 8-bit base rounds the inputs of its products, which the merged one does not.
    assert entry["kl"]["value"] < (1e-2 if more else 1e-8)


def test_a_stopped_export_goes_on_with_the_file_that_is_there(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    run, asked = Run(tmp_path / "toy"), toy_recipe(tmp_path, "control=null", "capture=null", "export.to=[merged]")
    with monkeypatch.context() as patch:
        patch.setattr("potstill.stages.export.measured", stop)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(asked, run)
    file = run.path("export") / "student" / "merged" / "model" / "model.safetensors"
    written = file.stat().st_mtime_ns
    run_recipe(asked, run)
    assert file.stat().st_mtime_ns == written
    assert [one["refused"] for one in _entries(run)] == [None]
