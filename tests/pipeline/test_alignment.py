from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import Dataset

from potstill.data.compared_turns import ComparedTurns
from potstill.data.conversations.across import OtherTeacher
from potstill.data.token_bytes import TokenBytes
from potstill.errors import UserError
from potstill.pipeline import alignment, artifacts
from tiny import documents, tokenizer
from tokenizer_zoo import folding, trained


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A step whose folder has held-out text, a student with `trained`'s tokens and a teacher with `tokenizer`'s."""
    teacher = SimpleNamespace(name="big", tokenizer=tokenizer)
    monkeypatch.setattr(artifacts, "existing_teachers", lambda work: [teacher])
    monkeypatch.setattr(artifacts, "tokenizer", lambda work: trained())
    return SimpleNamespace(folder=tmp_path)


def hold_out(work, texts):
    Dataset.from_dict({"text": texts}).save_to_disk(str(Path(work.folder) / "held_out"))


def test_the_held_out_text_is_measured_and_told(work, capsys):
    hold_out(work, documents(40))
    found = alignment.measured_alignment(work)["big"]
    assert found["bytes"] == sum(len(text.encode()) for text in documents(40))
    assert found["bytes_in_spans"] > 0.9 * found["bytes"]
    assert "of the held-out text is compared with the teacher" in capsys.readouterr().out


def test_the_places_that_are_aligned_worst_are_told(work, capsys):
    hold_out(work, ["one two https://example.org three", "four ①②③④⑤ five six", *documents(40)])
    alignment.measured_alignment(work)
    figures, *told = capsys.readouterr().out.splitlines()
    assert "of the held-out text is compared" in figures
    assert [line for line in told if not line.startswith("      ")] == [
        "    the longest texts that are not compared:",
        "    the longest spans:",
    ]
    assert told[1] == "      16 bytes: ' ①②③④⑤'"
    assert told[2].startswith("        student, ")
    assert told[3].startswith("        teacher, ")
    assert "      20 bytes: ' https://example.org'" in told


def test_each_teacher_has_figures_of_its_own(work, monkeypatch, capsys):
    several = [SimpleNamespace(name="big", tokenizer=tokenizer), SimpleNamespace(name="other", tokenizer=trained)]
    monkeypatch.setattr(artifacts, "existing_teachers", lambda work: several)
    hold_out(work, documents(40))
    found = alignment.measured_alignment(work)
    assert found["big"]["teacher_tokens"] > found["other"]["teacher_tokens"] == found["other"]["student_tokens"]
    assert "other: " in capsys.readouterr().out


def test_no_more_is_read_than_figures_need(work, monkeypatch):
    monkeypatch.setattr(alignment, "MEASURED_CHARACTERS", 500)
    hold_out(work, documents(40))
    assert 0 < alignment.measured_alignment(work)["big"]["bytes"] < 600


def test_one_document_is_measured_however_long_it_is(work, monkeypatch):
    monkeypatch.setattr(alignment, "MEASURED_CHARACTERS", 1)
    hold_out(work, documents(3))
    assert alignment.measured_alignment(work)["big"]["bytes"] == len(documents(3)[0].encode())


def test_a_tokenizer_that_changes_the_text_is_named(work, monkeypatch, capsys):
    hold_out(work, [text.title() for text in documents(10)])
    monkeypatch.setattr(artifacts, "tokenizer", lambda work: folding())
    told = r"the tokens of `tokenizer` do not give back \d+\.\d% of the held-out text .* and at most 1% can be left out"
    with pytest.raises(UserError, match=told):
        alignment.measured_alignment(work)
    # What is lost is seen before the run stops.
    assert "the longest texts that are not compared:" in capsys.readouterr().out
    teacher = SimpleNamespace(name="big", tokenizer=folding)
    monkeypatch.setattr(artifacts, "existing_teachers", lambda work: [teacher])
    monkeypatch.setattr(artifacts, "tokenizer", lambda work: trained())
    with pytest.raises(UserError, match=r"the tokens of `teachers.big` do not give back"):
        alignment.measured_alignment(work)


def test_a_little_that_is_lost_is_told(work, monkeypatch, capsys):
    hold_out(work, [*documents(40), "It has \u2460 half."])
    monkeypatch.setattr(artifacts, "tokenizer", lambda work: tokenizer())
    monkeypatch.setattr(artifacts, "existing_teachers", lambda work: [SimpleNamespace(name="big", tokenizer=trained)])
    alignment.measured_alignment(work)
    assert "bytes the teacher's tokens do not give back 3\n" in capsys.readouterr().out


COUNTS = {"bytes": 1000, "learned": 1000, "compared": 990, "spans": 100, "student_tokens": 150, "teacher_tokens": 250}


def turns(**counts):
    """What is compared of some turns with one teacher."""
    teachers = {"big": OtherTeacher(TokenBytes(tokenizer(), "`teachers.big`"), None)}
    return alignment.compared_turns(teachers, [ComparedTurns(**COUNTS, **counts)])


def test_of_turns_the_same_is_told_as_of_text(capsys):
    found = turns(lost_by_teacher=4)["compared_turns"]["big"]
    assert found["spans"] == 100
    assert found["lost_by_teacher"] == 4
    share, lost = "99.0% of the learned text is compared with `teachers.big`", "the teacher's tokens do not give back 4"
    spans = "in 100 spans of 1.50 tokens of the student and 2.50 of the teacher"
    assert capsys.readouterr().out == f"  {share}, {spans}, and of 1,000 bytes {lost}\n"


@pytest.mark.parametrize(("side", "name"), [("student", "`tokenizer`"), ("teacher", "`teachers.big`")])
def test_a_tokenizer_that_changes_learned_text_is_named(side, name):
    told = f"the tokens of {name} do not give back 2.0% of the learned text .20 of 1,000 bytes., and at most 1% can"
    with pytest.raises(UserError, match=told):
        turns(**{f"lost_by_{side}": 20})
