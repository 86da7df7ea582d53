"""select: one rule chooses a snapshot on the items used for selection, and never on reported ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import toy_questions
from potstill.errors import UserError
from potstill.evaluation import snapshot_curves, snapshot_scores
from potstill.pipeline import training_data
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import Recipe
from potstill.recipe.candidates import Candidate
from potstill.recipe.step import Step
from potstill.training.snapshots import whole_snapshots
from tiny import save_pairs, toy_recipe

RISING = (
    # Four samples, thirty times: what is chosen on gets better, and then worse.
    "corpus.validation=12",
    "corpus.train_tokens=128",
    "distil.training.max_steps=30",
    "distil.training.learning_rate=0.02",
    "distil.snapshots=6",
)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _same(one: Path, other: Path) -> bool:
    ours, theirs = _weights(one), _weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _selection(run: Run, step: str) -> dict:
    return json.loads((run.path(step) / "selection.json").read_text())


@pytest.fixture(scope="module")
def chosen_recipe(tmp_path_factory) -> Recipe:
    folder = tmp_path_factory.mktemp("select")
    return toy_recipe(folder, *RISING, "select={}", "seeds=[0, 1]")


@pytest.fixture(scope="module")
def chosen(chosen_recipe, tmp_path_factory) -> Run:
    """Many tests read it: none may write into it."""
    run = Run(tmp_path_factory.mktemp("runs") / "chosen")
    run_recipe(chosen_recipe, run)
    return run


@torch.no_grad()
def _loss(folder: Path, rows) -> float:
    ids = torch.tensor(rows["input_ids"])
    return AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=ids, labels=ids).loss.item()


def test_the_student_is_a_snapshot_that_is_as_good_as_the_best_on_validation_and_no_earlier_one_is(chosen):
    validation = load_from_disk(chosen.path("corpus") / "validation")
    for step, training in (("select/student/seed-0", "distil/seed-0"), ("select/control/seed-1", "control/seed-1")):
        told = _selection(chosen, step)
        losses = {f"step {one.step}": _loss(one.folder, validation) for one in whole_snapshots(chosen.path(training))}
        assert list(losses) == [f"step {number}" for number in (5, 10, 15, 20, 25, 30)]
        for candidate in told["candidates"]:
            assert candidate["value"] == pytest.approx(losses[candidate["name"]], rel=1e-4)
        assert told["best"] == min(losses, key=losses.get)
        tied = [candidate["name"] for candidate in told["candidates"] if candidate["tied"]]
        assert told["chosen"] == tied[0]
        number = told["chosen"].removeprefix("step ")
        assert _same(chosen.path(step) / "student", chosen.path(training) / "snapshots" / f"step-{number}")
        assert chosen.manifest(step)["summary"]["kept_step"] == int(number)
        assert losses["step 30"] > losses[told["best"]], "the last weights are not the best, or nothing is shown"


def test_what_is_reported_is_of_the_chosen_weights_on_the_held_out_split(chosen):
    rows = json.loads((chosen.path("evaluate") / "comparison.json").read_text())["rows"]
    found = next(row for row in rows if (row["model"], row["metric"]) == ("student", "loss"))
    held_out = load_from_disk(chosen.path("corpus") / "held_out")
    documents = held_out.select(range(8))["input_ids"]
    for seed, value in enumerate(found["seeds"]["values"]):
        model = AutoModelForCausalLM.from_pretrained(
            chosen.path(Step("select", candidate=Candidate("student", None, seed))) / "student"
        ).eval()
        assert value == pytest.approx(_by_hand(model, documents), rel=1e-4)


@torch.no_grad()
def _by_hand(model, documents) -> float:
    """Nats per token of documents in windows of 32 tokens that overlap by one."""
    nats, tokens = 0.0, 0
    for ids in documents:
        for at in range(0, len(ids) - 1, 31):
            window = torch.tensor([ids[at : at + 32]])
            count = window.shape[1] - 1
            nats, tokens = nats + model(input_ids=window, labels=window).loss.item() * count, tokens + count
    return nats / tokens


def test_whoever_chooses_does_not_even_open_what_is_reported(chosen_recipe, chosen, tmp_path, monkeypatch):
    again = Run(tmp_path / "again")
    for stage in ("teachers", "corpus", "student", "capture", "distil", "control"):
        shutil.copytree(chosen.path(stage), again.path(stage), symlinks=True)
    opened, scored, load, score = [], [], snapshot_scores.load_from_disk, snapshot_scores.score_answers
    for module in (snapshot_scores, training_data):
        monkeypatch.setattr(module, "load_from_disk", lambda path: opened.append(Path(path).name) or load(path))
    monkeypatch.setattr(snapshot_scores, "score_answers", lambda *given: scored.append(1) or score(*given))
    run_recipe(chosen_recipe, again, until="select")
    assert "validation" in opened
    assert "held_out" not in opened
    scores = [json.loads(file.read_text()) for file in (again.folder / "snapshots" / "scores").iterdir()]
    assert {figure["split"] for score in scores for figure in score["figures"]} == {"selection"}
    assert len(scores) == len(scored) == 4 * 6 + 1, "six snapshots of four trainings, and the start once"
    for step in ("select/student/seed-0", "select/control/seed-0"):
        assert _selection(again, step) == _selection(chosen, step)


def test_the_first_seeds_student_is_found_in_one_guess(chosen):
    assert (chosen.path("select") / "student/student").resolve() == (
        chosen.path("select/student/seed-0") / "student"
    ).resolve()
    AutoModelForCausalLM.from_pretrained(chosen.path("select") / "student/student")


def test_nothing_is_chosen_again(chosen_recipe, chosen, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in chosen.folder.rglob("manifest.json")}
    run_recipe(chosen_recipe, chosen)
    assert {path: path.stat().st_mtime_ns for path in chosen.folder.rglob("manifest.json")} == before


def test_a_mean_competes_and_is_what_its_name_says(tmp_path):
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, *RISING, 'select.average={"last": 3}', "control=null"), run, until="select")
    told = _selection(run, "select/student/seed-0")
    names = [candidate["name"] for candidate in told["candidates"]]
    assert names[-1] == "mean of the last 3"
    parts = [_weights(one.folder) for one in whole_snapshots(run.path("distil/seed-0"))[-3:]]
    model = AutoModelForCausalLM.from_pretrained(run.path("select/student/seed-0") / "student").eval()
    model.load_state_dict({name: sum(part[name] for part in parts) / 3 for name in parts[0]}, strict=False)
    ids = torch.tensor(load_from_disk(run.path("corpus") / "validation")["input_ids"])
    with torch.no_grad():
        expected = model(input_ids=ids, labels=ids).loss.item()
    assert told["candidates"][-1]["value"] == pytest.approx(expected, rel=1e-4)
    assert not list(run.path("select/student/seed-0").glob(".*"))


def test_where_all_snapshots_tie_the_last_is_kept_and_the_page_says_so(tmp_path):
    # Seven samples are too few to tell a snapshot from another.
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, *RISING, "corpus.validation=7", "select={}"), run)
    told = _selection(run, "select/student/seed-0")
    assert told["all_tie"]
    assert told["chosen"] == "step 30"
    assert _same(run.path("select/student/seed-0") / "student", whole_snapshots(run.path("distil/seed-0"))[-1].folder)
    assert "because the metrics of `select.by` tell none" in run.manifest("select/student/seed-0")["summary"]["made"]
    page = (run.path("report") / "index.html").read_text(encoding="utf-8")
    assert "Selection: by loss, no snapshot of student (seed 0) and control (seed 0) differs from another" in page


def test_where_no_weight_moves_the_last_snapshot_is_kept_and_not_a_mean(tmp_path):
    # The learning rate is so small that no weight moves.
    run = Run(tmp_path / "run")
    still = "distil.training.learning_rate=1e-30"
    run_recipe(toy_recipe(tmp_path, *RISING, still, 'select.average={"best": 2}', "control=null"), run, until="select")
    told = _selection(run, "select/student/seed-0")
    assert (told["all_tie"], told["chosen"]) == (True, "step 30")


def test_more_than_there_are_cannot_be_averaged(tmp_path):
    given = ['select.average={"best": 9}', "control=null"]
    with pytest.raises(UserError, match=r"`select.average.best` is 9, but `distil.snapshots` keeps only 6; lower it"):
        toy_recipe(tmp_path, *RISING, *given)
    recipe = toy_recipe(tmp_path, *RISING, *given, "distil.snapshots={every: 5}")
    with pytest.raises(UserError, match=r"`select.average.best: 9` is more than the 6 snapshots"):
        run_recipe(recipe, Run(tmp_path / "run"), until="select")


@pytest.mark.parametrize("merge", [False, True])
def test_adapters_are_chosen_from_and_averaged_as_adapters(tmp_path, merge):
    adapter = {"r": 2, "target_modules": ["q_proj", "v_proj"]}
    student = {"start": "copy", "from": "smollm2", "adapter": adapter, "merge": merge}
    run = Run(tmp_path / "run")
    given = [f"student={json.dumps(student)}", 'select.average={"best": 2}', "control=null"]
    run_recipe(toy_recipe(tmp_path, *RISING, *given), run, until="evaluate")
    snapshots = whole_snapshots(run.path("distil/seed-0"))
    assert len(snapshots) == 6
    assert all((one.folder / "adapter_model.safetensors").is_file() for one in snapshots), "small, merged or not"
    folder = run.path("select/student/seed-0") / "student"
    assert (folder / "adapter_model.safetensors").is_file() != merge
    assert (folder / "model.safetensors").is_file() == merge


def test_half_of_the_pairs_are_chosen_on_and_the_other_half_is_reported(tmp_path):
    pairs = {"toy": {"path": str(save_pairs(tmp_path / "pairs")), "start": "none"}}
    given = [f"evaluate.minimal_pairs={json.dumps(pairs)}", 'select.by={"loss": 1, "toy": 2}', "control=null"]
    run = Run(tmp_path / "run")
    run_recipe(toy_recipe(tmp_path, *RISING, *given), run, until="evaluate")
    told = _selection(run, "select/student/seed-0")
    assert told["by"] == {"loss": 1, "toy": 2}
    chosen_on = next(row["n"] for row in told["start"] if row["metric"] == "toy")
    rows = json.loads((run.path("evaluate") / "comparison.json").read_text())["rows"]
    reported = next(row["n"] for row in rows if row["metric"] == "toy")
    assert chosen_on + reported == 12
    assert 0 < chosen_on < 12


def test_of_questions_each_student_is_chosen_on_the_answers_of_its_own_sample_set(tmp_path):
    given = ["distil.keep=last", "distil.snapshots=2", "select={}", "seeds=[0]"]
    run = Run(tmp_path / "run")
    run_recipe(toy_questions.recipe(tmp_path, *given, "evaluate.batch_size=3"), run)
    losses, sample_sets_of = {}, {"placebo": "base/another_question"}
    for name in ("base", "ground-truth", "placebo"):
        told = _selection(run, f"select/student/{name}/seed-0")
        snapshots = {f"step {one.step}": one.folder for one in whole_snapshots(run.path(f"distil/{name}/seed-0"))}
        assert list(snapshots) == [candidate["name"] for candidate in told["candidates"]] == ["step 2", "step 4"]
        sample_set = load_from_disk(run.path("strategies") / sample_sets_of.get(name, f"{name}/own") / "validation")
        losses[name] = [_loss_of_answers(folder, sample_set) for folder in snapshots.values()]
        assert [candidate["value"] for candidate in told["candidates"]] == pytest.approx(losses[name], rel=1e-4)
        assert _same(run.path(f"select/student/{name}/seed-0") / "student", snapshots[told["chosen"]])
    assert len({tuple(each) for each in losses.values()}) == 3
    # What is reported is of the chosen weights.
    scores = json.loads((run.path("answers") / "student/base/seed-0" / "scores.json").read_text())
    rows = snapshot_curves.measure(run.folder, "all")
    step = run.manifest("select/student/base/seed-0")["summary"]["kept_step"]
    (row,) = [row for row in rows if (row["model"], row["step"], row["split"]) == ("student base", step, "reporting")]
    assert row["value"] == pytest.approx(sum(scores["nll"]) / sum(scores["tokens"]), rel=1e-5)
    students = {"student base", "student ground-truth", "student placebo"}
    assert {row["model"] for row in rows} == {"teacher", "start", "control", *students}


@torch.no_grad()
def _loss_of_answers(folder: Path, rows) -> float:
    model, nats, tokens = AutoModelForCausalLM.from_pretrained(folder).eval(), 0.0, 0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        count = int((labels[:, 1:] != -100).sum())
        nats, tokens = nats + model(input_ids=ids, labels=labels).loss.item() * count, tokens + count
    return nats / tokens
