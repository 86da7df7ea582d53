"""Samples: from conversations to samples, with a count of what became of each."""

from pathlib import Path

import pytest

import toy_chat
from potstill.data.conversations.conversation import BadRowError
from potstill.data.conversations.read import conversations_of
from potstill.data.conversations.samples import samples
from potstill.data.conversations.tally import ChatTally
from potstill.data.labels import IGNORE_INDEX
from potstill.errors import UserError
from potstill.recipe.conversations import PathConversations
from toy_chat import CASES, assistant, chat_tokenizer, conversation, settings, user

REAL = Path(__file__).parents[4] / "shared" / "data" / "chat"


def test_samples_are_made_and_counted():
    tally = ChatTally()
    found = list(samples(CASES.values(), chat_tokenizer(), settings(template="qwen"), tally))
    (source,) = tally.sources.values()
    assert list(tally.sources) == ["chats.jsonl"]
    assert source.conversations == {"whole": len(CASES)}
    assert source.samples == len(found)
    assert source.turns == source.turns_in_all == 13
    assert source.tokens == sum(len(sample.input_ids) for sample in found)
    assert source.supervised == sum(label != IGNORE_INDEX for sample in found for label in sample.labels[1:])
    assert source.rewritten == 4
    assert tally.template_digest == toy_chat.template("qwen").digest
    assert len(source.shown) == len(CASES)


def test_a_bad_conversation_stops_the_run_or_is_counted():
    given = [CASES["plain"], conversation(user("Why?"), assistant("Stop<|im_end|>")), CASES["tools"]]
    with pytest.raises(BadRowError, match="a turn of the assistant holds"):
        list(samples(given, chat_tokenizer(), settings(template="chatml")))
    tally = ChatTally()
    chosen = settings(template="gemma", on_bad_row="drop")
    assert len(list(samples(given, chat_tokenizer(), chosen, tally))) == 2
    (reason,) = tally.of("chats.jsonl").dropped.items()
    assert reason == ("the chat template refuses it (the template gemma has no place for tools)", 1)
    assert tally.of("chats.jsonl").rows == 3


def test_a_conversation_of_which_nothing_is_learned_is_counted_and_stops_nothing():
    tally = ChatTally()
    given = [CASES["plain"], conversation(user("Why?"), assistant("No.", weight=0))]
    assert len(list(samples(given, chat_tokenizer(), settings(template="chatml"), tally))) == 1
    assert tally.of("chats.jsonl").dropped == {"has no turn that is learned": 1}


@pytest.mark.parametrize(
    ("too_long", "outcome", "reason"),
    [
        ("drop", {}, "longer than 60 tokens"),
        ("cut_left", {"cut": 1}, None),
        ("split_turns", {"split": 1}, None),
        ("cut_right", {"cut": 1}, None),
    ],
)
def test_what_was_too_long_is_counted(too_long, outcome, reason):
    tally = ChatTally()
    list(
        samples(
            [CASES["turns"]],
            chat_tokenizer(),
            settings(template="chatml", sequence_length=60, too_long=too_long),
            tally,
        )
    )
    assert tally.of("chats.jsonl").conversations == outcome
    assert list(tally.of("chats.jsonl").dropped) == ([reason] if reason else [])


def test_a_template_that_cannot_be_used_is_said_before_any_row_is_read():
    def unread():
        raise AssertionError
        yield

    with pytest.raises(UserError, match="has no chat template"):
        samples(unread(), chat_tokenizer(), settings())


def test_the_same_conversations_are_shown_whatever_their_order():
    given = [conversation(user(f"What is {n}?"), assistant(f"It is {n}.")) for n in range(40)]
    shown = []
    for order in (given, given[::-1]):
        tally = ChatTally()
        list(samples(order, chat_tokenizer(), settings(template="chatml"), tally))
        shown.append([one.sample for one in tally.of("chats.jsonl").shown])
    assert shown[0] == shown[1]
    assert len(shown[0]) == 10


@pytest.mark.parametrize("template", ["chatml", "qwen"])
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("alpaca_en_demo.json", 999),
        ("glaive_toolcall_en_demo.json", 300),
        ("v1_sft_demo.jsonl", 500),
        ("reason_tool_use_demo_50.jsonl", 50),
    ],
)
def test_real_conversations_are_read_without_loss(name, rows, template):
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not here")
    given = list(conversations_of([PathConversations(path=str(REAL / name))], "corpus.conversations"))
    assert len(given) == rows
    tally = ChatTally()
    chosen = settings(template=template, sequence_length=2**17)
    assert all(sample.supervised for sample in samples(given[:20], chat_tokenizer(), chosen, tally))
    source = tally.of(name)
    assert source.conversations == {"whole": 20}
    assert source.turns == source.turns_in_all
    assert not source.left_out
