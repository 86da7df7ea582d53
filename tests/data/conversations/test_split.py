"""Split: each conversation is on one side and keeps it; streams end; what is dropped is counted."""

import json

import pytest

from potstill.data.conversations.split import split_conversations
from potstill.data.conversations.tally import ChatTally
from potstill.data.documents import training_text
from potstill.errors import UserError
from potstill.recipe.conversations import Conversations
from toy_chat import assistant, user


def rows(count=100, start=0):
    return [{"messages": [user(f"What is {n}?"), assistant(f"It is {n}.")]} for n in range(start, start + count)]


def save(folder, given, name="chats.jsonl"):
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    return file


def corpus(*files, **more):
    sources = [{"path": str(file)} for file in files]
    return Conversations.model_validate({"conversations": sources, "sequence_length": 64, **more})


def split(*files, **more):
    return split_conversations(corpus(*files, **more), ChatTally())


def asked(conversations):
    return [one.messages[0].content for one in conversations]


def test_a_conversation_is_on_one_side_and_keeps_it_when_there_are_more(tmp_path):
    few = split(save(tmp_path, rows(100)), held_out=0.2, validation=10)
    many = split(save(tmp_path, rows(200)[::-1]), held_out=0.2, validation=10)
    for found, count in ((few, 100), (many, 200)):
        together = [*asked(found.train), *asked(found.validation), *asked(found.held_out)]
        assert len(set(together)) == len(together) == count
        assert len(found.validation) == 10
    first = {f"What is {n}?" for n in range(100)}
    assert set(asked(few.held_out)) == set(asked(many.held_out)) & first
    assert 8 < len(few.held_out) < 36


def test_repeats_are_left_out_whatever_their_format(tmp_path):
    again = [{"instruction": f"What is {n}?", "output": f"It is {n}."} for n in range(30)]
    found = split(save(tmp_path, rows(50)), save(tmp_path, again, "again.jsonl"))
    assert found.repeated == 30
    assert len(found.train) + len(found.held_out) == 50


def test_what_is_held_out_is_not_trained_on(tmp_path):
    test = save(tmp_path, rows(20), "test.jsonl")
    apart = {"conversations": [{"path": str(test)}], "count": 15}
    found = split(save(tmp_path, rows(60)), held_out=apart, train=30)
    assert len(found.train) == 30
    assert len(found.held_out) == 15
    assert not set(asked(found.train)) & {f"What is {n}?" for n in range(20)}
    assert found.repeated == 20


def test_counts_take_the_same_ones_each_time(tmp_path):
    whole = split(save(tmp_path, rows()))
    part = split(save(tmp_path, rows()[::-1]), train=7)
    assert asked(part.train) == asked(whole.train)[:7]


def test_a_stream_is_read_only_as_far_as_it_is_needed(tmp_path):
    save(tmp_path / "chats", rows(400))
    source = {"dataset": str(tmp_path / "chats"), "stream": True}
    given = {"conversations": [source], "sequence_length": 64, "train": 20, "validation": 5, "held_out": 0.2}
    found = split_conversations(Conversations.model_validate(given), ChatTally())
    assert (len(found.train), len(found.validation)) == (20, 5)
    assert 2 <= len(found.held_out) < 40
    again = split_conversations(Conversations.model_validate(given), ChatTally())
    assert asked(again.train) == asked(found.train)


def test_rows_that_are_dropped_are_counted_by_reason(tmp_path):
    bad = [{"messages": [user("Why?")]}, {"messages": []}, {"messages": [user("So?")]}]
    file = save(tmp_path, [*rows(40), *bad])
    with pytest.raises(UserError, match=r"chats\.jsonl:41: has no turn of the assistant"):
        split(file)
    tally = ChatTally()
    found = split_conversations(corpus(file, on_bad_row="drop"), tally)
    assert len(found.train) + len(found.held_out) == 40
    assert tally.of("chats.jsonl").dropped == {"has no turn of the assistant": 2, "has no turns": 1}


def test_a_part_that_is_empty_says_why(tmp_path):
    with pytest.raises(UserError, match=r"give 1 conversations, which leaves \d to"):
        split(save(tmp_path, rows(1)))
    file = save(tmp_path, [{"text": "Hi."}] * 5)
    with pytest.raises(UserError, match=r"give 0 conversations \(5 rows were dropped, most because: holds no conv"):
        split(file, on_bad_row="drop")
    with pytest.raises(UserError, match="leaves 0 to train on; give more of them"):
        split(save(tmp_path, rows(20)), validation=20)


def test_a_tokenizer_is_trained_on_what_is_said(tmp_path):
    texts = training_text(corpus(save(tmp_path, rows(20))))
    assert all(text.startswith("What is ") and "\n\nIt is " in text for text in texts)
