"""Figures are lm-eval's own to the last digit: on toy tasks, and on a real model with LAMBADA, PIQA, ARC and BLiMP."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

import shared_tasks
import stories
from potstill.metrics.bootstrap import Resampling
from potstill.metrics.lm_eval.load import load_task
from potstill.metrics.lm_eval.score import TaskScores, score_task
from potstill.metrics.minimal_pairs.accuracy import accuracy
from potstill.metrics.minimal_pairs.read import pairs_from_files
from potstill.metrics.minimal_pairs.score import Reading, score_pairs
from tiny import gpt2, llama, save_model, tokenizer
from toy_tasks import BY_SIZE, CHOICE, GROUP, ITEMS, ROLLING, TAG, WORD, WRITING, save_tasks

pytestmark = pytest.mark.slow
LIMIT = 20
"""The number of items of each shared task."""
needs_shared = pytest.mark.skipif(not stories.SHARED.is_dir(), reason="../shared/data is not here")
EVERY = (CHOICE, WORD, ROLLING, WRITING, GROUP, BY_SIZE, TAG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def scores(folder):
    """The scores of one model on every task of the folder."""
    return {name: _score(llama(0), folder, name) for name in EVERY}


@pytest.fixture(scope="module")
def theirs(folder, tmp_path_factory):
    """lm-eval's results for the same model, read from disk."""
    saved = save_model(llama(0), tmp_path_factory.mktemp("model"))
    names = [CHOICE, WORD, ROLLING, WRITING, GROUP]
    return _lm_eval(saved, folder, names)


def _score(model, folder, name, **how):
    return score_task(model, tokenizer(), load_task(name, "evaluate.tasks.0", path=str(folder), **how), batch_size=4)


def _lm_eval(saved, folder, names, **how):
    """lm-eval's results, each task alone: mixed batches of several tasks would change the last digits."""
    where = {"model": "hf", "model_args": {"pretrained": str(saved), "dtype": "float32"}, "device": "cpu"}
    manager, found = TaskManager(include_path=str(folder), include_defaults=False), {}
    with pytest.MonkeyPatch.context() as patch:
        # lm-eval would describe this machine in its results, which takes 8 s each time.
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
        for name in names:
            found |= simple_evaluate(**where, tasks=[name], batch_size=4, task_manager=manager, **how)["results"]
    return found


@pytest.mark.parametrize("task", [CHOICE, WORD, ROLLING, WRITING, GROUP])
def test_figures_and_standard_errors_are_lm_evals_to_the_last_digit(scores, theirs, task):
    own = theirs[task]
    assert scores[task].scores
    for name, score in scores[task].scores.items():
        metric = name.partition("/")[2]
        assert score.value == own[f"{metric},none"], name
        stderr = own[f"{metric}_stderr,none"]
        assert score.stderr == (None if stderr == "N/A" else stderr), name


@pytest.mark.parametrize("task", [WORD, GROUP])
def test_standard_errors_can_be_left_out_and_nothing_else_changes(folder, scores, task):
    asked = load_task(task, "evaluate.tasks.0", path=str(folder))
    found = score_task(llama(0), tokenizer(), asked, batch_size=4, standard_errors=False)
    without = {name: replace(score, stderr=None) for name, score in scores[task].scores.items()}
    assert without != scores[task].scores
    assert found.scores == without


def test_a_groups_tasks_are_kept_beside_it(scores, theirs):
    parts = scores[GROUP].parts
    assert set(parts) == {f"{task}/{metric}" for task in ("toy_more", "toy_less") for metric in ("acc", "acc_norm")}
    for name, score in parts.items():
        task, _, metric = name.partition("/")
        assert score.value == theirs[task][f"{metric},none"]
        assert score.stderr == theirs[task][f"{metric}_stderr,none"]
    assert scores[GROUP].n == {"toy_more": ITEMS, "toy_less": ITEMS // 2}


def test_a_group_is_the_mean_of_its_tasks_alike_or_by_their_size(scores):
    more, less = (scores[GROUP].parts[f"{task}/acc"].value for task in ("toy_more", "toy_less"))
    assert more != less, "else this shows nothing"
    assert scores[GROUP].scores[f"{GROUP}/acc"].value == pytest.approx((more + less) / 2)
    assert scores[BY_SIZE].scores[f"{BY_SIZE}/acc"].value == pytest.approx((2 * more + less) / 3)
    assert scores[BY_SIZE].scores[f"{BY_SIZE}/acc"].weights == {"toy_more": 2 / 3, "toy_less": 1 / 3}


def test_a_tag_is_its_tasks_each_by_itself(scores):
    assert set(scores[TAG].scores) == set(scores[GROUP].parts)
    assert not scores[TAG].parts


@pytest.mark.parametrize(
    ("task", "metric", "aggregation", "better"),
    [
        (CHOICE, "acc", "mean", "higher"),
        (WORD, "perplexity", "perplexity", "lower"),
        (ROLLING, "word_perplexity", "weighted_perplexity", "lower"),
        (ROLLING, "bits_per_byte", "bits_per_byte", "lower"),
        (WRITING, "exact_match", "mean", "higher"),
        (GROUP, "acc_norm", "mean", "higher"),
    ],
)
def test_what_items_contributed_is_kept_with_what_becomes_of_it(scores, task, metric, aggregation, better):
    score = scores[task].scores[f"{task}/{metric}"]
    assert (score.aggregation, score.better) == (aggregation, better)
    assert sum(map(len, score.items.values())) == score.n == sum(scores[task].n.values())


def test_scores_survive_json(scores):
    for name, each in scores.items():
        assert TaskScores.from_dict(json.loads(json.dumps(each.to_dict()))) == each, name


def test_the_same_items_have_the_same_fingerprint_whoever_answers(folder, scores):
    other = _score(gpt2(1), folder, CHOICE)
    assert other.fingerprint == scores[CHOICE].fingerprint
    assert other.scores != scores[CHOICE].scores
    fewer = _score(llama(0), folder, CHOICE, limit=5)
    assert fewer.fingerprint != scores[CHOICE].fingerprint


@pytest.mark.parametrize("how", [{"limit": 5}, {"num_fewshot": 2}])
def test_a_limit_and_solved_examples_are_as_in_lm_eval(folder, tmp_path, how):
    saved = save_model(llama(0, max_position_embeddings=512), tmp_path / "model")
    found = _score(llama(0, max_position_embeddings=512), folder, CHOICE, **how).scores
    theirs = _lm_eval(saved, folder, [CHOICE], **how)[CHOICE]
    assert {name: score.value for name, score in found.items()} == {
        f"{CHOICE}/{metric}": theirs[f"{metric},none"] for metric in ("acc", "acc_norm")
    }
    assert {score.n for score in found.values()} == {how.get("limit", ITEMS)}


def test_solved_examples_are_shown(folder):
    none, two = (_score(llama(0), folder, CHOICE, num_fewshot=shots) for shots in (0, 2))
    assert none.fingerprint != two.fingerprint
    assert two.read > none.read


def test_who_asks_twice_is_told_the_same_and_disturbs_nobody(folder, scores):
    model, asked = llama(0), load_task(CHOICE, "evaluate.tasks.0", path=str(folder))
    first, before = score_task(model, tokenizer(), asked, batch_size=4), _generators()
    assert score_task(model, tokenizer(), asked, batch_size=4) == first == scores[CHOICE]
    assert _generators() == before


def _generators():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_tokens_read_and_written_are_counted(scores):
    assert scores[WRITING].written > 0
    assert scores[CHOICE].written == 0
    assert scores[CHOICE].read > 2 * ITEMS * 6, "two requests an item, of six words or more"


def test_nothing_is_said_on_the_standard_output(folder, capsys):
    _score(llama(0), folder, WORD)
    assert capsys.readouterr().out == ""


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    return shared_tasks.save_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def stories_scores(shared_folder):
    """The scores of stories260K on the first items of every task."""
    model, tokenizer = stories.model().eval(), stories.tokenizer()
    asked = {
        name: load_task(name, "evaluate.tasks.0", path=str(shared_folder), limit=LIMIT) for name in shared_tasks.EVERY
    }
    return {name: score_task(model, tokenizer, one, batch_size=4) for name, one in asked.items()}


@pytest.fixture(scope="module")
def stories_theirs(shared_folder, tmp_path_factory):
    """lm-eval's results for the same model, read from disk, each task alone: with several tasks it mixes their requests
    in batches, and last digits change."""
    saved = tmp_path_factory.mktemp("model")
    stories.model().save_pretrained(saved)
    stories.tokenizer().save_pretrained(saved)
    how = {"model": "hf", "model_args": {"pretrained": str(saved), "dtype": "float32"}, "device": "cpu"}
    manager = TaskManager(include_path=str(shared_folder), include_defaults=False)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        # lm-eval would describe this machine in its results, which takes 8 s each time.
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
        for name in shared_tasks.EVERY:
            found |= simple_evaluate(**how, tasks=[name], batch_size=4, limit=LIMIT, task_manager=manager)["results"]
    return found


@needs_shared
@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        (shared_tasks.LAMBADA, ["perplexity", "acc"]),
        (shared_tasks.PIQA, ["acc", "acc_norm"]),
        (shared_tasks.WINOGRANDE, ["acc"]),
        (shared_tasks.EASY, ["acc", "acc_norm"]),
        (shared_tasks.CHALLENGE, ["acc", "acc_norm"]),
        (shared_tasks.BLIMP, ["acc"]),
        (shared_tasks.ANSWERED, ["exact_match,answer"]),
        (shared_tasks.ROLLING, ["word_perplexity", "byte_perplexity", "bits_per_byte"]),
    ],
)
def test_of_a_real_model_figures_and_standard_errors_are_lm_evals(stories_scores, stories_theirs, task, metrics):
    found = stories_scores[task]
    assert sorted(found.scores) == sorted(f"{task}/{metric}" for metric in metrics)
    for name, score in {**found.scores, **found.parts}.items():
        own, _, metric = name.partition("/")
        metric, _, filtered = metric.partition(",")
        assert score.value == stories_theirs[own][f"{metric},{filtered or 'none'}"], name
        stderr = stories_theirs[own][f"{metric}_stderr,{filtered or 'none'}"]
        assert score.stderr == (None if stderr == "N/A" else stderr), name
        assert score.n == LIMIT * (len(shared_tasks.SUBTASKS) if own == shared_tasks.BLIMP else 1)


@needs_shared
def test_questions_are_taken_out_of_their_instructions(shared_folder):
    (task,) = load_task(shared_tasks.PIQA, "k", path=str(shared_folder)).loaded["tasks"].values()
    doc = task.eval_docs[0]
    assert task.doc_to_text(doc) == "Question: How do I ready a guinea pig cage for it's new occupants?\nAnswer:"
    one, other = task.doc_to_choice(doc)
    assert one.startswith("Provide the guinea pig with a cage full of a few inches of bedding made of ripped paper")
    assert other.endswith("ripped jeans material, you will also need to supply it with a water bottle and a food dish.")
    assert task.doc_to_target(doc) == 0
    (task,) = load_task(shared_tasks.WINOGRANDE, "k", path=str(shared_folder)).loaded["tasks"].values()
    doc = task.eval_docs[0]
    before = "Sarah was a much better surgeon than Maria so "
    assert task.doc_to_choice(doc) == [f"{before}Sarah", f"{before}Maria"]
    assert (task.doc_to_text(doc), task.doc_to_target(doc)) == (1, "always got the easier cases.")


@needs_shared
@pytest.mark.parametrize(
    ("task", "counts"),
    [
        (shared_tasks.PIQA, {2}),
        (shared_tasks.WINOGRANDE, {2}),
        (shared_tasks.EASY, {3, 4, 5}),
        (shared_tasks.CHALLENGE, {3, 4, 5}),
    ],
)
def test_questions_have_their_choices_and_one_of_them_is_right(shared_folder, task, counts):
    (loaded,) = load_task(task, "k", path=str(shared_folder)).loaded["tasks"].values()
    for doc in loaded.eval_docs.select(range(0, len(loaded.eval_docs), 10)):
        choices = loaded.doc_to_choice(doc)
        assert len(choices) in counts, doc
        right = loaded.doc_to_text(doc) if task == shared_tasks.WINOGRANDE else loaded.doc_to_target(doc)
        assert 0 <= right < len(choices), doc


@needs_shared
def test_our_own_minimal_pairs_are_lm_evals_blimp(stories_scores):
    subtasks = [
        one.first(LIMIT)
        for one in pairs_from_files(str(stories.SHARED / "blimp"), "k")
        if one.name in shared_tasks.SUBTASKS
    ]
    tokenizer = stories.tokenizer()
    found = score_pairs(stories.model(), tokenizer, subtasks, Reading.of(tokenizer), lambda _: None)
    # Ties as in lm-eval, which takes the first of two equally probable sentences.
    ours = accuracy("stories", "blimp", [found], ties="correct", resampling=Resampling(resamples=100))
    assert ours.overall.value == pytest.approx(
        stories_scores[shared_tasks.BLIMP].scores[f"{shared_tasks.BLIMP}/acc"].value, rel=1e-12
    )
    for name, row in ours.subtasks.items():
        part = f"blimp_{name.partition('/')[2] or name}_here"
        theirs = stories_scores[shared_tasks.BLIMP].parts[f"{part}/acc"]
        assert row.value == theirs.value, name
        won = found.good[name] >= found.bad[name]
        assert np.array_equal(won, theirs.items[part]), "pair by pair"
    assert len(ours.subtasks) == len(shared_tasks.SUBTASKS)
