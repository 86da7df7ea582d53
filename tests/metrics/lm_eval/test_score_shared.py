"""Against lm-eval itself, on a real model and real questions: LAMBADA, PIQA, WinoGrande, ARC and BLiMP."""

import numpy as np
import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

import stories
from potstill.metrics.bootstrap import Resampling
from potstill.metrics.lm_eval.load import load_task
from potstill.metrics.lm_eval.score import score_task
from potstill.metrics.minimal_pairs.accuracy import accuracy
from potstill.metrics.minimal_pairs.read import pairs_from_files
from potstill.metrics.minimal_pairs.score import Reading, score_pairs
from shared_tasks import (
    ANSWERED,
    BLIMP,
    CHALLENGE,
    EASY,
    EVERY,
    LAMBADA,
    PIQA,
    ROLLING,
    SUBTASKS,
    WINOGRANDE,
    save_tasks,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not stories.SHARED.is_dir(), reason="../shared/data is not here"),
]
LIMIT = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def scores(folder):
    """What stories260K scored on the first items of every task."""
    model, tokenizer = stories.model().eval(), stories.tokenizer()
    asked = {name: load_task(name, "evaluate.tasks.0", path=str(folder), limit=LIMIT) for name in EVERY}
    return {name: score_task(model, tokenizer, one, batch_size=4) for name, one in asked.items()}


@pytest.fixture(scope="module")
def theirs(folder, tmp_path_factory):
    """What lm-eval says of the same model where it was saved; of each task by itself, because it mixes the requests of
    several in its batches, and other batches are other last digits."""
    saved = tmp_path_factory.mktemp("model")
    stories.model().save_pretrained(saved)
    stories.tokenizer().save_pretrained(saved)
    how = {"model": "hf", "model_args": {"pretrained": str(saved), "dtype": "float32"}, "device": "cpu"}
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        # What it adds to its results of this machine takes 8 s each time.
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
        for name in EVERY:
            found |= simple_evaluate(**how, tasks=[name], batch_size=4, limit=LIMIT, task_manager=manager)["results"]
    return found


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        (LAMBADA, ["perplexity", "acc"]),
        (PIQA, ["acc", "acc_norm"]),
        (WINOGRANDE, ["acc"]),
        (EASY, ["acc", "acc_norm"]),
        (CHALLENGE, ["acc", "acc_norm"]),
        (BLIMP, ["acc"]),
        (ANSWERED, ["exact_match,answer"]),
        (ROLLING, ["word_perplexity", "byte_perplexity", "bits_per_byte"]),
    ],
)
def test_figures_and_standard_errors_are_lm_evals_to_the_last_digit(scores, theirs, task, metrics):
    found = scores[task]
    assert sorted(found.scores) == sorted(f"{task}/{metric}" for metric in metrics)
    for name, score in {**found.scores, **found.parts}.items():
        own, _, metric = name.partition("/")
        metric, _, filtered = metric.partition(",")
        assert score.value == theirs[own][f"{metric},{filtered or 'none'}"], name
        stderr = theirs[own][f"{metric}_stderr,{filtered or 'none'}"]
        assert score.stderr == (None if stderr == "N/A" else stderr), name
        assert score.n == LIMIT * (len(SUBTASKS) if own == BLIMP else 1)


def test_questions_are_taken_out_of_their_instructions(folder):
    (task,) = load_task(PIQA, "k", path=str(folder)).loaded["tasks"].values()
    doc = task.eval_docs[0]
    assert task.doc_to_text(doc) == "Question: How do I ready a guinea pig cage for it's new occupants?\nAnswer:"
    one, other = task.doc_to_choice(doc)
    assert one.startswith("Provide the guinea pig with a cage full of a few inches of bedding made of ripped paper")
    assert other.endswith("ripped jeans material, you will also need to supply it with a water bottle and a food dish.")
    assert task.doc_to_target(doc) == 0
    (task,) = load_task(WINOGRANDE, "k", path=str(folder)).loaded["tasks"].values()
    doc = task.eval_docs[0]
    before = "Sarah was a much better surgeon than Maria so "
    assert task.doc_to_choice(doc) == [f"{before}Sarah", f"{before}Maria"]
    assert (task.doc_to_text(doc), task.doc_to_target(doc)) == (1, "always got the easier cases.")


@pytest.mark.parametrize(
    ("task", "counts"), [(PIQA, {2}), (WINOGRANDE, {2}), (EASY, {3, 4, 5}), (CHALLENGE, {3, 4, 5})]
)
def test_questions_have_their_choices_and_one_of_them_is_right(folder, task, counts):
    (loaded,) = load_task(task, "k", path=str(folder)).loaded["tasks"].values()
    for doc in loaded.eval_docs.select(range(0, len(loaded.eval_docs), 10)):
        choices = loaded.doc_to_choice(doc)
        assert len(choices) in counts, doc
        right = loaded.doc_to_text(doc) if task == WINOGRANDE else loaded.doc_to_target(doc)
        assert 0 <= right < len(choices), doc


def test_our_own_minimal_pairs_are_lm_evals_blimp(scores):
    subtasks = [
        one.first(LIMIT) for one in pairs_from_files(str(stories.SHARED / "blimp"), "k") if one.name in SUBTASKS
    ]
    tokenizer = stories.tokenizer()
    found = score_pairs(stories.model(), tokenizer, subtasks, Reading.of(tokenizer), lambda _: None)
    # As lm-eval, which takes the first of two that are equally probable.
    ours = accuracy("stories", "blimp", [found], ties="correct", resampling=Resampling(resamples=100))
    assert ours.overall.value == pytest.approx(scores[BLIMP].scores[f"{BLIMP}/acc"].value, rel=1e-12)
    for name, row in ours.subtasks.items():
        part = f"blimp_{name.partition('/')[2] or name}_here"
        theirs = scores[BLIMP].parts[f"{part}/acc"]
        assert row.value == theirs.value, name
        won = found.good[name] >= found.bad[name]
        assert np.array_equal(won, theirs.items[part]), "pair by pair"
    assert len(ours.subtasks) == len(SUBTASKS)
