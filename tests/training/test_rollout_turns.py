"""What a teacher of another tokenizer reads of a written answer: its own tokens behind its own prompt."""

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.data.conversations.across import OtherReaders, OtherTeacher
from potstill.data.token_bytes import TokenBytes
from potstill.data.turns_of_batch import PIECES, pieces_of
from potstill.on_policy.prompts import SamplePrompt
from potstill.on_policy.rollouts import Rollout
from potstill.recipe.conversations import ChatSettings
from potstill.training.chat_samples import chat_samples
from potstill.training.rollout_turns import AnswerSide, RolloutTurns
from tokenizer_zoo import spaced_at_first, stories
from toy_chat import assistant, template, user
from toy_turns import student_tokenizer, teacher_tokenizer

TALK = [user("So?"), assistant("Go now."), user("And?")]
LAST = ChatSettings(learn="last", sequence_length=512)


def plain(made):
    made = deepcopy(made)
    made.chat_template = template("plain").text
    return made


STUDENTS = {"byte level": (student_tokenizer, "<|im_end|>"), "sentencepiece": (lambda: plain(stories()), "</s>")}
TEACHERS = {
    "byte level": (teacher_tokenizer, "<end_of_turn>"),
    "sentencepiece": (lambda: plain(stories()), "</s>"),
    "spaced at first": (lambda: plain(spaced_at_first()), "</s>"),
}


def sides(theirs, longest=None, ours="byte level"):
    (ours, our_end), (other, end) = STUDENTS[ours], TEACHERS[theirs]
    ours, other = ours(), other()
    student = AnswerSide(TokenBytes(ours, "the student"), ours.convert_tokens_to_ids(our_end))
    teacher = AnswerSide(TokenBytes(other, "the teacher"), other.convert_tokens_to_ids(end), longest)
    return RolloutTurns(student, [teacher], is_apart=False)


def sample_of(turns, answer):
    readers = OtherReaders(turns.student.bytes, [OtherTeacher(one.bytes, None) for one in turns.teachers])
    rows = [{"messages": [*TALK, assistant(answer)]}]
    (sample,) = chat_samples(rows, turns.student.bytes.tokenizer, LAST, "x", readers)
    return sample


def asked(turns, answer="It is."):
    sample = sample_of(turns, answer)
    begin = next(at for at, label in enumerate(sample["labels"]) if label != -100)
    prompt = [*sample["input_ids"][:begin]]
    return sample, SamplePrompt(prompt, others=turns.prompts(sample, prompt))


@pytest.mark.parametrize("ours", STUDENTS)
@pytest.mark.parametrize("theirs", TEACHERS)
@given(words=st.text(st.sampled_from("abc é✓🎈.\n"), min_size=1, max_size=20).filter(lambda text: text.strip() == text))
def test_a_written_turn_is_read_as_the_same_turn_of_a_corpus(ours, theirs, words):
    turns = sides(theirs, ours=ours)
    sample, prompt = asked(turns, words)
    ends = [at for at, label in enumerate(sample["labels"]) if label == turns.student.end]
    written = [*sample["input_ids"][len(prompt.student) : ends[-1] + 1]]
    found = turns.columns(Rollout(prompt, written, True, 0))
    ((own,), (of_corpus,)) = found[PIECES], sample[PIECES]
    assert pieces_of(own) == pieces_of(of_corpus)
    ((read,), (whole,)) = found["other_input_ids"], sample["other_input_ids"]
    assert read == [*whole[: len(read)]]
    assert turns.lost_text(Rollout(prompt, written, True, 0)) == [(0, len(words.encode()))]


def written(turns, *parts):
    """Tokens of texts, and special tokens."""
    return [one for part in parts for one in ([part] if isinstance(part, int) else byte_ids(turns, part))]


def byte_ids(turns, content):
    return [turns.student.bytes.each.index(bytes([byte])) for byte in content]


def test_nothing_is_read_after_a_special_token_or_a_byte_that_is_no_text():
    turns = sides("byte level")
    _, prompt = asked(turns)
    end, start = turns.student.end, turns.student.bytes.tokenizer.convert_tokens_to_ids("<|im_start|>")
    (theirs,) = turns.teachers
    for ids, text, ended, lost in (
        (written(turns, b"Go.", end), "Go.", True, 0),
        (written(turns, b"Go."), "Go.", False, 0),
        (written(turns, b"Go.", start, b"No", end), "Go.", False, 2),
        (written(turns, b"G\xffo.", end), "G", False, 3),
        (written(turns, b"\xa9Go.", end), "", False, 4),
        (written(turns, end), "", True, 0),
    ):
        rollout = Rollout(prompt, ids, ids[-1] == end, 0)
        ((read,), (pieces,)) = (turns.columns(rollout)[name] for name in ("other_input_ids", PIECES))
        answer = read[len(prompt.others[0]) :]
        assert theirs.bytes.joined(answer).decode() == text
        assert (answer[-1:] == [theirs.end]) == ended
        assert [piece.closed for piece in pieces_of(pieces)] == ([ended] if text else [])
        total = len(turns.student.bytes.joined(ids))
        assert turns.lost_text(rollout) == [(lost, total)]


def test_an_answer_is_cut_where_the_teacher_has_no_more_room():
    whole = sides("byte level")
    _, prompt = asked(whole)
    length = len(prompt.others[0])
    _, short = asked(sides("byte level", length + 2))
    assert short == prompt
    turns = sides("byte level", length + 2)
    found = turns.columns(Rollout(prompt, written(turns, b"xyzxyz", turns.student.end), True, 0))
    (read,) = found["other_input_ids"]
    assert len(read) == length + 2
    assert not any(piece.closed for piece in pieces_of(found[PIECES][0]))
    _, none = asked(sides("byte level", length + 1))
    assert none.others == [[]]


def test_a_teacher_that_does_not_teach_a_sample_reads_nothing():
    turns = sides("byte level")
    sample, prompt = asked(turns)
    untaught = {**sample, "other_input_ids": [[]], "other_labels": [[]], PIECES: [[]]}
    assert turns.prompts(untaught, prompt.student) == [[]]
    found = turns.columns(Rollout(SamplePrompt(prompt.student, others=[[]]), byte_ids(turns, b"Go."), False, 0))
    assert [found[name] for name in ("other_input_ids", PIECES)] == [[[]], [[]]]
