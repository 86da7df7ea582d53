"""The first texts of a trainer are read by all tokenizers before anything is spent."""

from types import SimpleNamespace

import pytest
from datasets import Dataset
from torch.utils.data import IterableDataset

from potstill.data.aligned_texts import aligned_texts
from potstill.data.alignment_figures import AlignmentFigures
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.teachers.across_tokenizers import TeacherAcross
from potstill.teachers.captured_spans import CapturedSpans
from potstill.training import text_alignment
from potstill.training.text_alignment import measure_texts, texts_of
from tiny import documents, tokenizer
from tokenizer_zoo import folding, trained

OURS, THEIRS = TokenBytes(tokenizer(), "the student"), TokenBytes(trained(), "the teacher")
ROWS = [{"text": text} for text in documents(20)]


def live(theirs=THEIRS, ours=OURS):
    return TeacherAcross(SimpleNamespace(), ours, theirs, ["alm"])


def tokens(text):
    return OURS.tokenizer(text).input_ids


def test_what_is_told_is_what_the_corpus_tells_of_held_out_text(capsys):
    measure_texts(ROWS, "text", {0: live()}, None)
    found = AlignmentFigures()
    for some in aligned_texts(documents(20), OURS, THEIRS):
        found.add(some)
    told = found.told("the text of the first 20 samples of `train_dataset`", "the teacher")
    assert capsys.readouterr().out == f"  {told}\n"


def test_a_table_and_tokens_are_texts_too(capsys):
    measure_texts(ROWS, "text", {0: live()}, None)
    told = capsys.readouterr().out
    for same in (Dataset.from_list(ROWS), [{"input_ids": tokens(row["text"])} for row in ROWS]):
        measure_texts(same, "text", {0: live()}, None)
        assert capsys.readouterr().out == told


def test_each_side_that_loses_text_is_named():
    capitals = [{"text": text.title()} for text in documents(3)]
    with pytest.raises(UserError, match=r"the tokens of the teacher do not give back .* the first 3 samples of"):
        measure_texts(capitals, "text", {0: live(TokenBytes(folding(), "the teacher"))}, None)
    with pytest.raises(UserError, match=r"the tokens of the student do not give back"):
        measure_texts(capitals, "text", {0: live(ours=TokenBytes(folding(), "the student"))}, None)


def test_a_little_that_is_lost_is_told(capsys):
    measure_texts([*ROWS, {"text": "\u2460"}], "text", {0: live()}, None)
    assert capsys.readouterr().out.endswith("bytes the teacher's tokens do not give back 3\n")


def test_of_tokens_a_teacher_alone_can_lose_text():
    row = {"input_ids": tokens("\u2460\u2461 or so")}
    with pytest.raises(UserError, match=r"the tokens of the teacher do not give back 50.0% .* .6 of 12 bytes"):
        measure_texts([row], "text", {0: live()}, None)


def test_a_teacher_reads_its_own_rows(capsys):
    lost = {"text": "\u2460", "teachers": ["b"]}
    rows = [*({**row, "teachers": ["a"]} for row in ROWS), lost]
    measure_texts(rows, "text", {0: live()}, ["a", "b"])
    assert "give back" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"the tokens of the teacher do not give back 100.0%"):
        measure_texts(rows, "text", {1: live()}, ["a", "b"])


def test_no_more_is_read_than_figures_need(monkeypatch, capsys):
    monkeypatch.setattr(text_alignment, "MEASURED_CHARACTERS", 400)
    measure_texts([*ROWS, {"text": "\u2460" * 1000}], "text", {0: live()}, None)
    (many,) = [int(word) for word in capsys.readouterr().out.split("first ")[1].split(" ")[:1]]
    assert 1 < many < 10


def test_of_a_captured_teacher_the_students_side_is_measured(capsys):
    captured = CapturedSpans(SimpleNamespace(path="store"), TokenBytes(trained(), "the student"))
    measure_texts(ROWS, "text", {0: captured}, None)
    assert capsys.readouterr().out == ""
    measure_texts([*ROWS, {"text": "\u2460"}], "text", {0: captured}, None)
    size = sum(len(text.encode()) for text in documents(20)) + 3
    told = f"was captured, and of {size:,} bytes the student's tokens do not give back 3\n"
    assert capsys.readouterr().out.endswith(told)
    with pytest.raises(UserError, match=r"the tokens of the student do not give back 100.0%"):
        measure_texts([{"text": "\u2460"}], "text", {0: captured}, None)


class Once(IterableDataset):
    def __iter__(self):
        raise AssertionError("a stream is not read before the training")


@pytest.mark.parametrize("dataset", [None, Once(), [{"labels": [1]}], ["no row"]])
def test_what_has_no_text_is_not_measured(dataset, capsys):
    measure_texts(dataset, "text", {0: live()}, None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("sample", "texts"),
    [
        ({"text": "one"}, ["one"]),
        ({"prompt": "one ", "completion": "two"}, ["one two"]),
        ({"prompt": [], "completion": []}, []),
        ({"text": ""}, []),
        ({"input_ids": [0, *tokens("one"), 0, *tokens("two"), 1, 1]}, ["one", "two"]),
        # A character that is cut is no text.
        ({"input_ids": tokens("a \u2460")[:-1], "text": None}, ["a "]),
        ({"input_ids": [*tokens("one"), 70_000]}, ["one"]),
    ],
)
def test_the_texts_of_a_sample(sample, texts):
    assert texts_of(sample, "text", OURS) == texts


def test_pads_are_no_text():
    one, pads = tokens("one"), tokens("two")
    row = {"input_ids": [*one, *pads], "attention_mask": [1] * len(one) + [0] * len(pads)}
    assert texts_of(row, "text", OURS) == ["one"]
