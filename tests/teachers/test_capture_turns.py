"""What is captured of turns: the two numbers of each learned token, whatever the student's tokenizer is."""

from copy import deepcopy

import pytest
import torch

import toy_turns
from potstill.data.collators import Collator
from potstill.data.conversations.across import OtherReaders, OtherTeacher
from potstill.data.token_bytes import TokenBytes
from potstill.data.turns_of_batch import TurnsCollator
from potstill.losses import span_scores
from potstill.losses.span_passes import numbers_of_rows
from potstill.losses.teacher_target import SparseTarget
from potstill.targets.turn_collator import CapturedTurnsCollator
from potstill.teachers import capture_turns as module
from potstill.teachers.capture_turns import ReadTurns, numbers_of_turns
from potstill.teachers.live import LiveTeacher
from potstill.training.chat_samples import chat_samples
from tiny import tokenizer
from toy_chat import settings, template
from toy_training import captured_turns

THEIRS = TokenBytes(toy_turns.teacher_tokenizer(), "the teacher")
END = toy_turns.teacher_tokenizer().convert_tokens_to_ids("<end_of_turn>")


@pytest.fixture(scope="module")
def samples():
    read = [row for row in toy_turns.samples(toy_turns.by_row()) if len(row["other_input_ids"][0])]
    return [{name: row[f"other_{name}"][0] for name in ("input_ids", "labels")} for row in read[:3]]


def test_numbers_are_those_of_the_teachers_softmax(samples):
    model = toy_turns.teacher()
    found = numbers_of_turns(LiveTeacher(model), ReadTurns(samples, THEIRS, END), 3)
    at, begins = 0, torch.from_numpy(THEIRS.begins_word)
    for sample in samples:
        ids = torch.as_tensor(sample["input_ids"]).long()
        with torch.no_grad():
            log_p = model.double()(input_ids=ids[None]).logits[0].log_softmax(-1)
        model.float()
        for place in [number for number, label in enumerate(sample["labels"]) if label >= 0]:
            own = log_p[place - 1, ids[place]]
            mass = own if ids[place] == END else log_p[place - 1, : len(begins)][begins].logsumexp(0)
            torch.testing.assert_close(found.log_p[at].double(), own, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.log_mass[at].double(), mass.clamp_min(-60), rtol=1e-4, atol=1e-4)
            at += 1
    assert at == len(found.log_p) > 20


class Telling:
    """A teacher that tells its likeliest tokens alone, and the label."""

    def __init__(self, model, told):
        self._live, self._told = LiveTeacher(model), told

    def targets(self, batches):
        for batch in batches:
            logits = self._live.target(batch)
            rows = logits.logits if hasattr(logits, "logits") else logits.hidden @ logits.head.weight.T
            top, ids = rows.log_softmax(-1).topk(self._told)
            rest = torch.log1p(-top.logsumexp(-1).exp().clamp_max(1 - 1e-7))
            yield SparseTarget(ids, top, rest)


def test_a_teacher_that_tells_all_its_likeliest_tokens_says_the_same(samples):
    turns, model = ReadTurns(samples, THEIRS, END), toy_turns.teacher()
    exact = numbers_of_turns(LiveTeacher(model), turns, 3)
    found = numbers_of_turns(Telling(model, model.config.vocab_size), turns, 3)
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_student_of_another_tokenizer_finds_the_same_records(tmp_path):
    """The store of one student's conversations has all that another student reads of them."""
    given = toy_turns.by_row()
    rows = toy_turns.samples(given)
    store = captured_turns(tmp_path, toy_turns.teacher(), toy_turns.teacher_tokenizer(), END, rows)
    other = deepcopy(tokenizer())
    other.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    other.chat_template = template("gemma").text
    ours = TokenBytes(other, "another student")
    readers = OtherReaders(ours, [OtherTeacher(THEIRS, None)])
    again = chat_samples(toy_turns.talks(), other, settings(), "train_dataset", readers)
    taught = [row for row, names in zip(again, toy_turns.NAMES * 2, strict=True) if "maths" in names]
    assert taught[0]["input_ids"].tolist() != rows[0]["input_ids"].tolist()
    batch = CapturedTurnsCollator(TurnsCollator(Collator(0), ours, THEIRS), store)(taught)
    learned = sum(label >= 0 for row in taught for label in row["other_labels"][0])
    assert batch["teacher_span_numbers"].shape == (learned, 2)


def test_a_long_capture_fuses_its_passes(tmp_path, samples, monkeypatch):
    weighed, asked = [], []
    monkeypatch.setattr(module, "worth_compiling", lambda *one: weighed.append(one[:2]) or True)
    monkeypatch.setattr(span_scores, "numbers_of_rows", lambda *one: asked.append(one[4]) or numbers_of_rows(*one[:4]))
    rows = toy_turns.samples(toy_turns.by_row())
    captured_turns(tmp_path, toy_turns.teacher(), toy_turns.teacher_tokenizer(), END, rows)
    learned = [sum(label >= 0 for label in row["other_labels"][0]) for row in rows]
    assert weighed == [(sum(learned), len(THEIRS.each))]
    assert asked
    assert all(asked)
