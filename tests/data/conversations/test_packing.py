"""Packing: whole conversations fill samples, and each is read as if it stood alone."""

from hypothesis import given
from hypothesis import strategies as st

from potstill.data.collators import Collator
from potstill.data.conversations.packing import packed_conversations
from potstill.data.conversations.render import ChatSample
from potstill.data.conversations.samples import samples
from potstill.data.labels import IGNORE_INDEX, count_supervised
from toy_chat import CASES, chat_tokenizer, settings


def sample(number, size):
    ids = [number] * size
    return ChatSample(ids, [IGNORE_INDEX, *ids[1:]], (), f"chats.jsonl:{number}", "chats.jsonl")


@given(st.lists(st.integers(2, 50), min_size=1, max_size=60))
def test_every_conversation_is_whole_and_in_one_sample(sizes):
    given = [sample(number, size) for number, size in enumerate(sizes)]
    found = list(packed_conversations(given, 50))
    assert all(len(one.input_ids) == len(one.labels) == sum(one.documents) <= 50 for one in found)
    held = []
    for one in found:
        start = 0
        for size in one.documents:
            part = one.input_ids[start : start + size]
            assert len(set(part)) == 1
            held.append((part[0], size))
            start += size
    assert sorted(held) == list(enumerate(sizes))
    # No two of them would fit into one.
    least = sorted(len(one.input_ids) for one in found)[:2]
    assert len(least) < 2 or sum(least) > 50


def test_the_same_tokens_are_learned_packed_and_padded():
    made = list(samples(CASES.values(), chat_tokenizer(), settings(template="chatml")))
    collate = Collator(chat_tokenizer().pad_token_id)
    padded = collate([{"input_ids": one.input_ids, "labels": one.labels} for one in made])
    packed = list(packed_conversations(made, 600))
    assert len(packed) < len(made)
    batch = collate([vars(one) for one in packed])
    assert count_supervised(batch) == count_supervised(padded) == sum(one.supervised for one in made)
