import gzip
import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from datasets import load_from_disk
from ruamel.yaml import YAML
from safetensors.torch import save_file

from potstill.console import duration, size
from potstill.export.evidence import evidence
from potstill.export.model_card import write_cards
from potstill.files.atomic import read_json
from potstill.pipeline import artifacts
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.pipeline.work import Work
from potstill.recipe import Recipe
from potstill.recipe.step import Step
from potstill.report.number_format import forecast
from potstill.report.page import render
from potstill.stages.report import _adapter, gather
from tiny import toy_recipe


def _page(run):
    return (run.path("report") / "index.html").read_text(encoding="utf-8")


def test_the_page_stands_alone(run):
    page = _page(run)
    loads = re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)([^"']+)""", page)
    assert not [address for address in loads if address.startswith(("http:", "//"))]
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)\s*=\s*[\"']https?:", page)


def test_the_page_names_every_model_and_every_figure(run):
    page = _page(run)
    for said in ("smollm2", "student", "control", "Distilled" if "Distilled" in page else "distil"):
        assert said in page
    assert "56,352" in page or "56k" in page.lower(), "the teacher's size"


def test_the_page_names_the_number_format(run, recipe):
    assert re.search(r"Made on [^<]+, in fp32\.", _page(run))
    in_bf16 = recipe.model_copy(update={"precision": "bf16"})
    page = render(gather(Work(in_bf16, run, Step("report"))))
    assert re.search(r"Made on [^<]+, in bf16\.", page)


def test_each_forecast_stands_beside_what_happened(run):
    table = _page(run).partition("Forecast and what happened")[2].partition("</table>")[0]
    names = re.findall(r'<th scope="col">(.*?)</th>', table)
    (row,) = re.findall(r'<tr><th scope="row">distil/seed-0</th>(.*)</tr>', table)
    cells = dict(zip(names[1:], re.findall(r"<td>(.*?)</td>", row), strict=True))
    manifest = run.manifest(Step("distil", 0))
    told, place = manifest["forecast"], "host" if manifest["forecast"]["device_bytes"] is None else "device"
    assert cells["Time forecast"] == forecast(told["seconds"], duration)
    assert cells["Time"] == duration(manifest["cost"]["seconds"])
    assert cells["Memory forecast"] == forecast(told[f"{place}_bytes"], size)
    assert cells["Memory"] == size(manifest["peak_memory"][place])
    assert cells["Disk forecast"] == forecast(told["disk_bytes"], size)
    assert cells["Disk"] == size(sum(made["bytes"] for made in manifest["outputs"].values()))
    assert len(set(cells.values())) >= 6, "no two of these figures are the same"


def test_curves_are_the_losses_and_nothing_else(run, recipe):
    report = gather(Work(recipe, run, Step("report")))
    assert {(curve.model, curve.seed) for curve in report.curves} == {
        (model, seed) for model in ("student", "control") for seed in range(3)
    }
    common = {"step", "loss", "learning_rate", "tokens"}
    for curve in report.curves:
        terms = {"cross_entropy", "forward_kl"} if curve.model == "student" else {"cross_entropy"}
        assert all(point.keys() == common | terms for point in curve.points)
        assert [point["tokens"] for point in curve.points] == sorted(point["tokens"] for point in curve.points)


def test_a_page_is_drawn_of_the_least_that_a_recipe_can_ask_for(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, "control=null", "capture=null", "evaluate.documents=2", "evaluate.samples=0"), run)
    assert "leaves the control out" in _page(run)
    assert "The same prompts, answered" not in _page(run)
    assert not (run.path("evaluate") / "samples.json").exists()


@pytest.fixture(scope="module")
def of_questions(questions_recipe, questions_run):
    return gather(Work(questions_recipe, questions_run, Step("report")))


def test_several_students_keep_their_names_everywhere(of_questions):
    students = {"student base", "student ground-truth", "student placebo"}
    assert {row.model for row in of_questions.rows} == {"teacher", "start", "control"} | students
    assert {(curve.model, curve.seed) for curve in of_questions.curves} == {
        (model, seed) for model in students | {"control"} for seed in (0, 1)
    }
    assert {model.role for model in of_questions.models} == {"teacher", "start", "control"} | students
    assert of_questions.placebos == ("student placebo",)
    about = {model.name: model.about for model in of_questions.models}
    assert about["placebo"] == "strategy base; its teacher spoke about other questions"


def test_questions_are_told_as_questions(of_questions, questions_run):
    trained_on = questions_run.manifest("corpus")["summary"]["train_questions"]
    assert f"3 students of 37,792 parameters in 2 layers, from {trained_on} questions" in of_questions.story
    assert "strategies base, ground-truth" in of_questions.story
    assert of_questions.units == "held-out questions"
    assert [metric.name for metric in of_questions.metrics] == ["accuracy", "loss", "hit_limit", "no_number"]
    assert of_questions.passages == ()
    notes = " ".join(of_questions.notes)
    assert "the strategy base, and answered greedily, with at most 12 tokens" in notes
    assert "fine-tuned on the same answers as base" in notes
    waiting = read_json(questions_run.path("evaluate") / "comparison.json")["undecided"]
    total = sum(map(sum, waiting.values()))
    assert total, "a teacher that cannot count leaves something to decide"
    assert f"{total:,} answers that no rule settles count as wrong" in notes


def test_the_page_of_questions_is_drawn(of_questions):
    page = render(of_questions)
    assert "Student ground-truth" in page
    assert "Minus student placebo, whose teacher spoke about other questions" in page


def test_an_only_student_needs_no_name(questions_recipe, questions_run):
    only = questions_recipe.model_copy(update={"experiments": {"base": questions_recipe.experiments["base"]}})
    report = gather(Work(only, questions_run, Step("report")))
    assert {curve.model for curve in report.curves} == {"student", "control"}
    assert {"student", "start"} <= {row.model for row in report.rows}
    assert {pair.a for pair in report.paired if pair.metric == "accuracy"} >= {"student"}
    others = tuple(row for row in report.rows if not row.model.startswith("student "))
    assert "better" in render(replace(report, rows=others))


def test_what_the_student_wrote_in_training_is_on_the_page(recipe, run, tmp_path):
    copied = Run(shutil.copytree(run.folder, tmp_path / "run"))
    folder = copied.path(Step("distil", 0))
    written = {"step": 1, "written_at": 1, "prompt_ids": [5], "ids": [6, 7], "stopped": True, "reverse_kl": [0.5, 1.0]}
    (folder / "rollouts.jsonl.gz").write_bytes(gzip.compress(json.dumps(written).encode() + b"\n"))
    report = gather(Work(recipe, copied, Step("report")))
    (training,) = report.on_policy
    assert training.curve.model == "student"
    assert [kl for _, kl in training.early[0].tokens] == [0.5, 1.0]
    assert "KL 0.75 nats" in render(report)
    assert "On-policy" not in _page(run)


def test_an_adapter_is_counted(tmp_path):
    file = tmp_path / "adapter_model.safetensors"
    assert _adapter(file) is None
    save_file({"a": torch.zeros(4, 8), "b": torch.zeros(16, 4)}, file)
    assert _adapter(file) == 96


def test_all_figures_and_the_card_lie_beside_the_page(run):
    facts, evaluated = (read_json(run.path(stage) / "comparison.json") for stage in ("report", "evaluate"))
    assert [row["value"] for row in facts["rows"]] == [row["value"] for row in evaluated["rows"]]
    (student,) = facts["students"]
    assert (student["folder"], student["seeds"]) == ("distil/seed-0/student", 3)
    assert "student/model.safetensors" in student["files"]
    assert "comparison.json" in run.manifest("report")["outputs"]
    card = (run.path("export") / "README.md").read_text(encoding="utf-8")
    assert facts["verdict"]["headline"] in card
    assert (run.path("export") / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_each_student_of_several_has_a_card(of_questions, questions_recipe, questions_run, tmp_path):
    facts = evidence(of_questions, questions_recipe, questions_run, [])
    assert [student["name"] for student in facts["students"]] == ["base", "ground-truth", "placebo"]
    for student, file in zip(facts["students"], write_cards(tmp_path, facts, None), strict=True):
        assert file == tmp_path / student["name"] / "README.md"
        card = file.read_text(encoding="utf-8")
        assert f"It is {student['label']} of the run’s 3 students." in card


def test_the_control_and_the_teachers_size_are_among_the_models(recipe, run):
    models = {model.role: model for model in gather(Work(recipe, run, Step("report"))).models}
    assert set(models) == {"teacher", "start", "student", "control"}
    assert models["control"].bytes == models["student"].bytes
    assert models["teacher"].bytes


def test_three_lines_load_the_student(recipe, run):
    (student,) = gather(Work(recipe, run, Step("report"))).reuse.students
    loaded: dict[str, object] = {}
    exec(student.lines, loaded)
    assert loaded["model"].num_parameters() == run.manifest("student")["summary"]["parameters"]
    assert loaded["tokenizer"]("a")["input_ids"]
    assert student.folder in _page(run)


def test_the_recipe_is_on_the_page_with_and_without_its_defaults(recipe, run):
    reuse = gather(Work(recipe, run, Step("report"))).reuse
    given, whole = (YAML(typ="safe", pure=True).load(text) for text in (reuse.given, reuse.whole))
    assert "confidence" not in given["evaluate"]
    assert whole["evaluate"]["confidence"] == 0.95
    assert Recipe.model_validate(given) == Recipe.model_validate(whole)


def test_held_out_beginnings_stand_beside_how_every_model_goes_on(recipe, run):
    report = gather(Work(recipe, run, Step("report")))
    assert len(report.prompts) == recipe.evaluate.samples
    held_out, tokenizer = load_from_disk(run.path("corpus") / "held_out"), artifacts.tokenizer(Work(recipe, run, None))
    for number, shown in enumerate(report.prompts):
        (_, beginning), *more = shown.turns
        assert more == []
        assert [answer.model for answer in shown.answers] == [None, "teacher", "student", "control"]
        text = tokenizer.decode(held_out[number]["input_ids"], skip_special_tokens=True)
        assert text.startswith(beginning + shown.answers[0].text)
    answers = {answer.text for shown in report.prompts for answer in shown.answers[1:]}
    assert len(answers) > 1
    assert beginning.split()[0] in _page(run)


def test_answers_that_are_judged_by_a_number_are_shown_too(of_questions):
    models = [None, "teacher", "student base", "student ground-truth", "student placebo", "control"]
    assert [answer.model for answer in of_questions.prompts[0].answers] == models
