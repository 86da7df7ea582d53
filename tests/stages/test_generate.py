"""generate: a teacher's answers replace the references, each with its provenance."""

import pytest
from datasets import load_from_disk

import toy_questions
from potstill.errors import UserError
from potstill.files.jsonl_log import read_jsonl
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.stages import generate as stage
from tiny import tokenizer

DRAWN = "generate={by: t, max_new_tokens: 40, samples: 3, temperature: 2.0, batch_size: 16}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    run, recipe = Run(folder / "run"), toy_questions.recipe(folder, DRAWN)
    run_recipe(recipe, run, until="strategies")
    return recipe, run


def test_what_is_kept_is_what_is_learned(made):
    _, run = made
    kept = read_jsonl(run.path("generate") / "answers.jsonl")
    assert kept
    learned = load_from_disk(run.path("strategies") / "base/own" / "train").to_list()
    assert [one["id"] for one in learned] == [f"{row['id']}#{row['provenance']['sample']}" for row in kept]
    for one, row in zip(learned, kept, strict=True):
        assert one["answer_cut"] or tokenizer().decode(one["input_ids"][one["answer_start"] : -1]) == row["answer"]
        assert row["provenance"]["teacher"] == "t"
    assert run.manifest("generate")["summary"]["kept"] == len(kept)


def test_a_reference_is_still_what_is_held_out(made):
    _, run = made
    known = {row["id"]: row["reference"] for row in load_from_disk(run.path("corpus") / "held_out").to_list()}
    for one in load_from_disk(run.path("strategies") / "base/held_out" / "samples").to_list():
        assert tokenizer().decode(one["input_ids"][one["answer_start"] : -1]) == known[one["id"]]


def test_stopped_midway_it_goes_on_to_the_same_answers(made, tmp_path, monkeypatch):
    recipe, whole = made
    run, asked = Run(tmp_path / "run"), stage.responses

    def stopped(*args, **how):
        batches = asked(*args, **how)
        yield next(batches)
        yield next(batches)
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "responses", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, run, until="generate")
    every = read_jsonl(whole.path("generate") / "responses.jsonl")
    assert 0 < len(read_jsonl(run.path("generate") / "responses.jsonl")) < len(every)
    monkeypatch.setattr(stage, "responses", asked)
    run_recipe(recipe, run, until="generate")
    for name in ("answers.jsonl", "responses.jsonl"):
        assert read_jsonl(run.path("generate") / name) == read_jsonl(whole.path("generate") / name)


def test_a_teacher_that_is_never_right_is_told(tmp_path):
    override = "generate={by: t, max_new_tokens: 2, keep: correct}"
    with pytest.raises(UserError, match=r"`generate.max_new_tokens`: no answer of teacher 't' ended within 2 tokens"):
        run_recipe(toy_questions.recipe(tmp_path, override), Run(tmp_path / "run"), until="generate")


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("generate={by: u}", "`generate.by`: 'u' is not one of the teachers: t"),
        (
            "generate={by: t, strategy: groundtruth}",
            "`generate.strategy`: there is no strategy 'groundtruth' .*`ground-truth`",
        ),
        ("answers.strategy=none", "`answers.strategy`: there is no strategy 'none' under `strategies`; "),
        (
            "experiments={a: {strategy: bas}}",
            "`experiments.a.strategy`: there is no strategy 'bas'.*did you mean `base`",
        ),
    ],
)
def test_what_there_is_not_is_named(tmp_path, override, why):
    with pytest.raises(UserError, match=why):
        toy_questions.recipe(tmp_path, override)
