"""Conversations: models are judged on every turn of the assistant, each token in the unit of its turn."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.evaluation import conversations
from potstill.evaluation.candidate_models import own_models
from potstill.evaluation.conversations import held_out_turns
from potstill.files.atomic import read_json
from potstill.metrics.conversations.turn_scores import row_of
from potstill.metrics.conversations.turns import TURNS
from potstill.pipeline import artifacts
from potstill.pipeline.graph import all_steps
from potstill.pipeline.run_folder import Run
from potstill.pipeline.up_to_date import is_done
from potstill.recipe.candidates import Candidate
from potstill.recipe.conversations import TeacherReading
from toy_chat import chat_tokenizer


def comparison(work, kind="rows"):
    return read_json(work.run.path("evaluate") / "comparison.json")[kind]


def value(work, model, metric):
    (row,) = [row for row in comparison(work) if (row["model"], row["metric"]) == (model, metric)]
    return row


def turns_of(conversation):
    """How many turns the assistant has."""
    return sum(message.role == "assistant" for message in conversation.messages)


def changed(work, **corpus):
    """The same run, read by a recipe with another corpus section."""
    recipe = work.recipe
    return replace(work, recipe=recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update=corpus)}))


def test_every_step_of_the_run_is_done(chat_work):
    assert all(is_done(chat_work.recipe, chat_work.run, step) for step in all_steps(chat_work.recipe))


def test_the_loss_is_that_of_the_assistants_tokens_by_turn(chat_work):
    model, tokenizer = artifacts.start_model(chat_work), artifacts.tokenizer(chat_work)
    nats, counts = np.zeros(len(TURNS)), np.zeros(len(TURNS))
    for conversation in artifacts.conversations(chat_work, "held_out").values():
        messages = [message for message in conversation.messages if not message.tool_calls]
        if len(messages) < len(conversation.messages):
            continue
        given = [{"role": one.role, "content": one.content} for one in messages]
        ids = torch.tensor([tokenizer.apply_chat_template(given, tokenize=True, return_dict=False)])
        with torch.no_grad():
            losses = -model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        # Whatever stands between "<|im_start|>assistant\n" and the end of the turn is judged.
        text = tokenizer.decode(ids[0])
        ends = np.cumsum([len(tokenizer.decode([token])) for token in ids[0]])
        place = 0
        for turn in range(turns_of(conversation)):
            start = text.index("<|im_start|>assistant\n", place) + len("<|im_start|>assistant\n")
            place = text.index("<|im_end|>", start) + len("<|im_end|>")
            inside = (ends > start) & (ends <= place)
            group = min(turn, len(TURNS) - 1)
            nats[group] += float(losses[torch.from_numpy(inside[1:])].sum())
            counts[group] += inside.sum()
    for turns, expected in list(zip(TURNS, nats / counts, strict=True))[1:]:
        assert value(chat_work, "start", f"loss/{turns}")["value"] == pytest.approx(expected, rel=1e-4)


def test_the_units_are_conversations_that_have_such_a_turn(chat_work):
    counts = [turns_of(one) for one in artifacts.conversations(chat_work, "held_out").values()]
    assert value(chat_work, "student", "loss")["n"] == len(counts)
    for least, turns in enumerate(TURNS, 1):
        assert value(chat_work, "student", f"loss/{turns}")["n"] == sum(count >= least for count in counts)


def test_students_are_compared_with_start_and_control_by_every_metric(chat_work):
    rows, pairs = comparison(chat_work), comparison(chat_work, "paired")
    assert {row["model"] for row in rows if row["metric"] == "loss"} == {"teacher", "start", "student", "control"}
    assert {row["model"] for row in rows if row["metric"] == "kl_to_teacher"} == {"start", "student", "control"}
    compared = {(pair["a"], pair["b"], pair["metric"]) for pair in pairs}
    metrics = {row["metric"] for row in rows if not row["metric"].endswith("random")}
    assert compared == {("student", other, metric) for other in ("start", "control") for metric in metrics}


def test_all_turns_are_judged_whatever_is_learned(chat_work):
    every, last = held_out_turns(chat_work), held_out_turns(changed(chat_work, learn="last"))
    assert [sample["labels"] for sample in last.samples] == [sample["labels"] for sample in every.samples]


def test_pieces_of_a_long_conversation_stay_in_its_units(chat_work):
    whole = held_out_turns(chat_work)
    pieces = held_out_turns(changed(chat_work, sequence_length=64, too_long="split_turns"))
    assert max(len(sample["input_ids"]) for sample in pieces.samples) <= 64
    assert len(pieces.samples) > len(pieces.document_bytes) // len(TURNS)
    assert len(pieces.document_bytes) < len(whole.document_bytes), "an exchange that is too long is left out"
    later = max(int(units.max()) % len(TURNS) for units in pieces.units)
    assert later == len(TURNS) - 1, "a turn keeps the number that it has in the whole conversation"


def test_teachers_read_what_they_are_given_and_are_judged_on_the_same_tokens(chat_work):
    work = changed(chat_work, teacher=TeacherReading(system="You know coins.", sequence_length=500))
    text = held_out_turns(work)
    _, batch = next(text.batches())
    theirs = [one for one in batch["teacher_labels"].flatten().tolist() if one != IGNORE_INDEX]
    assert theirs == [one for one in batch["labels"].flatten().tolist() if one != IGNORE_INDEX]
    assert "You know coins." in chat_tokenizer().decode(batch["teacher_input_ids"][0])
    assert [len(units) for units in text.units] == [
        sum(label != IGNORE_INDEX for label in sample["labels"]) for sample in text.samples
    ]


@pytest.mark.parametrize("together", [True, False])
def test_the_figures_of_teachers_are_those_of_what_they_read(chat_work, tmp_path, monkeypatch, together):
    shutil.copytree(chat_work.run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("evaluate"))
    own = changed(chat_work, teacher=TeacherReading(system="You know coins.", sequence_length=500))
    work = replace(own, run=Run(tmp_path / "run"))
    monkeypatch.setattr(conversations, "fit_together", lambda *_: together)
    teacher, text = artifacts.teachers(work)[0].model(), held_out_turns(work)
    nats, tokens = 0.0, 0
    for _, batch in text.batches():
        learned = batch["teacher_labels"][:, 1:] != IGNORE_INDEX
        read = {"input_ids": batch["teacher_input_ids"], "attention_mask": batch["teacher_attention_mask"]}
        with torch.no_grad():
            log_probs = teacher(**read).logits[:, :-1].log_softmax(-1)
        nats -= float(log_probs.gather(2, read["input_ids"][:, 1:, None])[..., 0][learned].sum())
        tokens += int(learned.sum())
    rows = {(row.model, row.metric): row.value for row in conversations.measure(work, own_models(work)).rows}
    assert rows["teacher", "loss"] == pytest.approx(nats / tokens, rel=1e-3)
    assert rows["teacher", "loss"] != pytest.approx(value(chat_work, "teacher", "loss")["value"], rel=1e-3)
    assert rows["start", "loss"] == pytest.approx(value(chat_work, "start", "loss")["value"], rel=1e-5)
    assert rows["start", "kl_to_teacher"] != value(chat_work, "start", "kl_to_teacher")["value"]


def test_too_few_conversations_are_refused(chat_work):
    with pytest.raises(UserError, match=r"`corpus.held_out`: 0 of \d+ held-out conversations can be judged"):
        held_out_turns(changed(chat_work, sequence_length=16))


def test_the_loss_of_a_run_is_that_of_its_saved_scores(chat_work):
    folder = Candidate("student", None, 0).folder
    scores = read_json(chat_work.run.path("evaluate") / "scores" / f"{folder}.json")
    assert len(scores["tokens"]) == row_of(len(artifacts.conversations(chat_work, "held_out")), 1)
    loss = sum(scores["nll"]) / sum(scores["tokens"])
    assert value(chat_work, "student", "loss")["value"] == pytest.approx(loss)
