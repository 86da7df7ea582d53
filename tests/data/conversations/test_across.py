"""The turns of conversations as two models read them: what is compared, byte by byte, and where turns end."""

from copy import deepcopy
from functools import cache

import pytest
import torch

import toy_chat
from potstill.data.collators import Collator
from potstill.data.compared_turns import ComparedTurns
from potstill.data.conversations.across import Side, samples_across
from potstill.data.conversations.chat_template import chat_template
from potstill.data.conversations.tally import ChatTally
from potstill.data.labels import supervised_mask
from potstill.data.prompts.collator import teacher_batch
from potstill.data.token_bytes import TokenBytes
from potstill.data.turns_of_batch import PIECES, TurnPiece, TurnsCollator
from tokenizer_zoo import stories
from tokenizer_zoo import trained as byte_level
from toy_chat import assistant, conversation, settings, user

SPECIAL = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|start_header_id|>"]
SPECIAL += ["<|end_header_id|>", "<|eot_id|>"]
TALK = [
    user("Why does it rain?"),
    assistant("Warm air rises, and cools. Then it rains — naïvely said."),
    user("And now?"),
    assistant("It snows."),
]


@cache
def side(name, template, longest=None):
    """A tokenizer with the special tokens of chat templates, and one of the templates."""
    if name == "tiny":
        made = toy_chat.chat_tokenizer()
    else:
        made = deepcopy({"byte level": byte_level, "stories": stories}[name]())
        made.add_special_tokens({"additional_special_tokens": SPECIAL})
    return Side(chat_template(made, settings(template=template)), TokenBytes(made, name), longest)


def paired(student, teacher, *turns, **given):
    compared, tally = ComparedTurns(), ChatTally()
    found = samples_across(conversation(*(turns or TALK)), student, [teacher], settings(**given), tally, [compared])
    return found, compared


def pieces_of(sample):
    (numbers,), width = sample[PIECES], len(TurnPiece._fields)
    return [TurnPiece(*numbers[at : at + width]) for at in range(0, len(numbers), width)]


SIDES = [
    (("tiny", "chatml"), ("byte level", "gemma")),
    (("tiny", "llama-3"), ("stories", "chatml")),
    (("stories", "gemma"), ("tiny", "chatml")),
    (("byte level", "chatml"), ("stories", "gemma")),
]


@pytest.mark.parametrize(("one", "other"), SIDES)
def test_pieces_are_the_words_of_the_turns_for_both(one, other):
    student, teacher = side(*one), side(*other)
    (sample,), compared = paired(student, teacher)
    found = pieces_of(sample)
    texts = [turn["content"] for turn in TALK if turn["role"] == "assistant"]
    assert len(found) == 2
    for piece, text in zip(found, texts, strict=True):
        mine = student.bytes.joined(sample["input_ids"][piece.begin : piece.stop])[piece.own_space :]
        its = teacher.bytes.joined(sample["other_input_ids"][0][piece.other_begin : piece.other_stop])
        assert mine == its[piece.other_own_space :] == text.encode()
        assert piece.closed
        assert sample["labels"][piece.stop] == sample["input_ids"][piece.stop] == student.end
        assert sample["other_labels"][0][piece.other_stop] == teacher.end
    assert compared.share > 0.9


def without_teacher(batch):
    return {name: value for name, value in batch.items() if not name.startswith("teacher_")}


def batch_of(student, teacher, *turns):
    samples, _ = paired(student, teacher, *turns)
    rows = [*samples, *paired(student, teacher, user("So?"), assistant("Go now."))[0]]
    return TurnsCollator(Collator(0), student.bytes, teacher.bytes)(rows)


@pytest.mark.parametrize(("one", "other"), SIDES)
def test_spans_are_the_same_words_and_the_last_ends_the_turn(one, other):
    student, teacher = side(*one), side(*other)
    batch = batch_of(student, teacher)
    spans = batch["teacher_spans"]
    texts = []
    for prefix, of_side, columns in (("", student, spans[:, :2]), ("teacher_", teacher, spans[:, 2:4])):
        own = teacher_batch(batch) if prefix else without_teacher(batch)
        places = supervised_mask(own).flatten().nonzero()[:, 0] + 1
        ids = own["input_ids"].flatten()[places].tolist()
        found = [(of_side.bytes.joined(ids[begin:end]).strip(b" "), ids[end]) for begin, end in columns.tolist()]
        texts.append([(text, number == of_side.end) for text, number in found])
    assert texts[0] == texts[1]
    joined = b" ".join(text for text, _ in texts[0])
    assert joined == b"Warm air rises, and cools. Then it rains \xe2\x80\x94 na\xc3\xafvely said. It snows. Go now."
    # The last word of each turn is compared with the end of the turn.
    assert [text for text, ends in texts[0] if ends] == [b"said.", b"snows.", b"now."]


@pytest.mark.parametrize(("one", "other"), SIDES)
def test_the_spans_of_training_are_counted(one, other):
    student, teacher = side(*one), side(*other)
    samples, compared = paired(student, teacher)
    spans = TurnsCollator(Collator(0), student.bytes, teacher.bytes)(samples)["teacher_spans"]
    assert compared.spans == len(spans) > 10
    tokens = (spans[:, 1] - spans[:, 0]).sum(), (spans[:, 3] - spans[:, 2]).sum()
    assert (compared.student_tokens, compared.teacher_tokens) == tokens
    assert compared.student_reads == len(samples[0]["input_ids"]) > compared.student_tokens
    assert compared.teacher_reads == len(samples[0]["other_input_ids"][0]) > compared.teacher_tokens
    words = sum(len(turn["content"].encode()) for turn in TALK if turn["role"] == "assistant")
    assert (compared.bytes, compared.bytes_in_spans) == (words, words)
    assert (compared.lost_by_student, compared.lost_by_teacher) == (0, 0)


def test_the_spans_of_a_turn_that_is_cut_are_those_of_training():
    student, teacher = side("tiny", "chatml"), side("byte level", "gemma", 60)
    samples, compared = paired(student, teacher, too_long="cut_right")
    spans = TurnsCollator(Collator(0), student.bytes, teacher.bytes)(samples)["teacher_spans"]
    assert compared.spans == len(spans) > 0


def test_words_that_are_lost_are_counted_where_they_are_learned():
    student, teacher = side("tiny", "chatml"), side("byte level", "gemma")
    talk = [user("\u2460?"), assistant("\u2461 or so"), user("And?"), assistant("one \u2462")]
    assert paired(student, teacher, *talk)[1].lost_by_teacher == 6
    found = paired(student, teacher, *talk, learn="last")[1]
    assert (found.bytes, found.lost_by_student, found.lost_by_teacher) == (len("one 123"), 0, 3)
    thought = assistant("It rains.", reasoning_content="\u2460 clouds")
    assert paired(side("tiny", "qwen"), teacher, user("Why?"), thought)[1].lost_by_teacher == 3
    assert paired(side("tiny", "qwen"), teacher, user("Why?"), thought, reasoning=False)[1].lost_by_teacher == 0


def test_what_is_too_long_is_not_counted():
    _, compared = paired(side("tiny", "chatml"), side("byte level", "gemma", 20))
    assert compared == ComparedTurns()


def test_padding_of_either_side_changes_no_span():
    student, teacher = side("tiny", "chatml"), side("byte level", "gemma")
    together = batch_of(student, teacher)["teacher_spans"]
    collate = TurnsCollator(Collator(0), student.bytes, teacher.bytes)
    alone = [collate(paired(student, teacher, *turns)[0]) for turns in ((), (user("So?"), assistant("Go now.")))]
    expected, shift = [], torch.zeros(6, dtype=torch.int64)
    for batch in alone:
        expected.append(batch["teacher_spans"] + shift)
        ours, theirs = (int(supervised_mask(part).sum()) for part in (without_teacher(batch), teacher_batch(batch)))
        shift = shift + torch.tensor([ours, ours, theirs, theirs, 0, 0])
    assert torch.equal(together, torch.cat(expected))


def test_a_text_that_one_tokenizer_changes_is_compared_up_to_there():
    student, teacher = side("tiny", "chatml"), side("byte level", "gemma")
    (sample,), compared = paired(student, teacher, user("Half?"), assistant("take one ½ of it"))
    (piece,) = pieces_of(sample)
    assert student.bytes.joined(sample["input_ids"][piece.begin : piece.stop]).startswith(b"take one")
    assert not piece.closed
    assert 0.3 < compared.share < 0.8


def test_a_turn_that_is_not_learned_is_not_compared():
    student, teacher = side("tiny", "chatml"), side("byte level", "gemma")
    (sample,), _ = paired(student, teacher, learn="last")
    (piece,) = pieces_of(sample)
    assert student.bytes.joined(sample["input_ids"][piece.begin : piece.stop]) == b"It snows."


def test_reasoning_that_both_templates_show_is_compared_too():
    student, teacher = side("tiny", "qwen"), side("byte level", "gemma")
    (sample,), _ = paired(student, teacher, user("Why?"), assistant("It rains.", reasoning_content="Clouds."))
    texts = [student.bytes.joined(sample["input_ids"][one.begin : one.stop]) for one in pieces_of(sample)]
    (read,) = sample["other_input_ids"]
    its = [teacher.bytes.joined(read[one.other_begin : one.other_stop]) for one in pieces_of(sample)]
    assert texts == its
    assert b"".join(texts).startswith(b"<think>")
    assert texts[-1].endswith(b"It rains.")


def test_a_sample_that_is_too_long_for_the_teacher_is_dropped_or_cut():
    student = side("tiny", "chatml")
    short = side("byte level", "gemma", 60)
    assert paired(student, short)[0] == []
    (cut,), _ = paired(student, short, too_long="cut_right")
    assert len(cut["other_input_ids"][0]) == 60
    (whole,), _ = paired(student, side("byte level", "gemma"))
    assert cut["labels"] == whole["labels"]
    assert pieces_of(cut)[0].other_stop <= 60
    assert len(pieces_of(cut)) < len(pieces_of(whole)) or not pieces_of(cut)[-1].closed


def test_each_of_several_teachers_is_paired_by_itself():
    student, one, other = side("tiny", "chatml"), side("byte level", "gemma"), side("stories", "chatml")
    compared = [ComparedTurns(), ComparedTurns(), ComparedTurns()]
    teachers = [one, None, other]
    (found,) = samples_across(conversation(*TALK), student, teachers, settings(), ChatTally(), compared)
    for number, teacher in ((0, one), (2, other)):
        (alone,), _ = paired(student, teacher)
        assert found["input_ids"] == alone["input_ids"]
        for name in ("other_input_ids", "other_labels", PIECES):
            assert found[name][number] == alone[name][0]
    assert [found[name][1] for name in ("other_input_ids", "other_labels", PIECES)] == [[], [], []]
    assert compared[1] == ComparedTurns()


def test_a_row_that_a_teacher_does_not_teach_has_nothing_to_learn():
    student, one, other = side("tiny", "chatml"), side("byte level", "gemma"), side("stories", "chatml")
    tally, compared = ChatTally(), [ComparedTurns(), ComparedTurns()]
    rows = [
        samples_across(conversation(*TALK), student, teachers, settings(), tally, compared)[0]
        for teachers in ([one, other], [None, other])
    ]
    batch = TurnsCollator(Collator(0), student.bytes, one.bytes, 0)(rows)
    theirs = teacher_batch(batch)
    assert supervised_mask(theirs)[1].sum() == 0
    alone = TurnsCollator(Collator(0), student.bytes, one.bytes, 0)(rows[:1])
    assert torch.equal(batch["teacher_spans"], alone["teacher_spans"])
