"""What a teacher of another tokenizer cannot read of what a student wrote."""

from potstill.data.token_bytes import TokenBytes
from potstill.on_policy.prompts import SamplePrompt
from potstill.on_policy.rollouts import Rollout
from potstill.training.rollout_text import lost_text
from tiny import tokenizer


def lost(prompt, answer):
    return lost_text(TokenBytes(tokenizer(), "ours"), Rollout(SamplePrompt(prompt), answer, True, 0))


def ids_of(content):
    each = TokenBytes(tokenizer(), "ours").each
    return [each.index(bytes([byte])) for byte in content]


def test_bytes_that_are_no_text_are_lost_up_to_the_next_special_token():
    end = tokenizer().eos_token_id
    assert lost(ids_of(b"one"), [*ids_of(b" two"), end]) == (0, 4)
    assert lost(ids_of(b"one"), ids_of(b" t\xffwo")) == (3, 5)
    assert lost(ids_of(b"one"), [*ids_of(b" t\xffwo"), end, *ids_of(b"ok")]) == (3, 7)
    # A character that the prompt has begun is finished.
    assert lost(ids_of(b"na\xc3"), ids_of(b"\xafve")) == (0, 3)
    assert lost([], []) == (0, 0)
