"""The messages of `potstill serve`: what is sent is what is read, and what is no request is refused by a sentence."""

import dataclasses
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from potstill.servers.hidden_states_format import (
    FORMAT,
    HeadFacts,
    HiddenRequest,
    HostFacts,
    RequestError,
    TeacherFacts,
    answer_bytes,
    hidden_of_answer,
)

FACTS = HostFacts(FORMAT, "0", 20, TeacherFacts("m", "f", "t", 300, 8, "float32", 6, HeadFacts("h", 1.0, None)))


def tensors(ids=(5, 6, 7, 8), lengths=(3, 1), supervised=(0, 1, 1, 0), **others):
    plain = {"ids": np.array(ids, np.int32), "lengths": np.array(lengths, np.int32)}
    return plain | {"supervised": np.array(supervised, np.uint8)} | others


@pytest.mark.parametrize("rows", [[3], [2, 5, 1], [1, 2]])
def test_a_request_is_read_as_it_was_made(rows):
    ids = [np.arange(length, dtype=np.int32) for length in rows]
    made = HiddenRequest.of_rows(ids, [np.arange(length) > 0 for length in rows])
    found = HiddenRequest.from_bytes(made.to_bytes())
    for field in dataclasses.fields(made):
        assert np.array_equal(getattr(found, field.name), getattr(made, field.name))
        assert getattr(found, field.name).dtype == getattr(made, field.name).dtype
    assert (found.longest, found.padded_tokens) == (max(rows), len(rows) * max(rows))
    assert found.asked == sum(rows) - len(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_answer_is_read_as_it_was_made(dtype):
    hidden = torch.randn(5, 3).to(dtype)
    found = hidden_of_answer(answer_bytes(hidden[1:4]))
    assert found.dtype == dtype
    assert torch.equal(found, hidden[1:4])


@pytest.mark.parametrize("body", [b"", b"no", answer_bytes(torch.zeros(2, 2))[:-3], save({"other": np.zeros(2)})])
def test_what_is_no_answer_is_refused(body):
    with pytest.raises(ValueError, match="no hidden states"):
        hidden_of_answer(body)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "no safetensors"),
        (b"{}", "no safetensors"),
        (save(tensors())[:-1], "no safetensors"),
        (answer_bytes(torch.zeros(2, 2, dtype=torch.bfloat16)), "no safetensors"),
        (save({}), "`ids` must be a tensor of one dimension and of int32"),
        (save(tensors() | {"ids": np.zeros(4, np.int64)}), "`ids` must be"),
        (save(tensors() | {"lengths": np.ones((2, 2), np.int32)}), "`lengths` must be"),
        (save(tensors() | {"supervised": np.array(1, np.uint8)}), "`supervised` must be"),
        (save(tensors(more=np.zeros(1))), "`more` is no tensor of a request"),
        (save(tensors(lengths=())), "at least one row"),
        (save(tensors(lengths=(4, 0))), "at least one token"),
        (save(tensors(lengths=(5, -1))), "at least one token"),
        (save(tensors(lengths=(3, 2))), "they must agree"),
        (save(tensors(lengths=(2**31 - 1,) * 3)), "they must agree"),
        (save(tensors(supervised=(0, 1, 1))), "they must agree"),
        (save(tensors(ids=(), lengths=(1,), supervised=())), "they must agree"),
        (save(tensors(supervised=(0, 1, 2, 0))), "0 and 1 only"),
        (save(tensors(supervised=(1, 1, 1, 0))), "the first token of a row"),
        (save(tensors(supervised=(0, 1, 1, 1))), "the first token of a row"),
        (save(tensors(supervised=(0, 0, 0, 0))), "asks for no token"),
    ],
)
def test_what_is_no_request_is_refused(body, sentence):
    with pytest.raises(RequestError, match=sentence):
        HiddenRequest.from_bytes(body)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ids": range(7), "lengths": [7], "supervised": [0] + [1] * 6}, "a row has 7 tokens, .* at most 6"),
        ({"ids": [1] * 10, "lengths": [6, 1, 1, 1, 1], "supervised": [0, 1] + [0] * 8}, "30 tokens with pads, .* 20"),
        ({"ids": (5, 300, 7, 8)}, "no token 300; its tokens are 0 to 299"),
        ({"ids": (5, 6, 7, -1)}, "no token -1"),
    ],
)
def test_what_the_teacher_cannot_read_is_refused(given, sentence):
    asked = HiddenRequest.from_bytes(save(tensors(**given)))
    with pytest.raises(RequestError, match=sentence):
        asked.check(FACTS)
    HiddenRequest.from_bytes(save(tensors())).check(FACTS)


@given(st.binary(max_size=8), st.integers(0, 400), st.integers(0, 255))
def test_damaged_bytes_are_a_request_or_a_sentence(extra, place, value):
    body = bytearray(save(tensors()) + extra)
    body[place % len(body)] = value
    with suppress(RequestError):
        found = HiddenRequest.from_bytes(bytes(body))
        found.check(FACTS)
        assert found.ids.max() < FACTS.teacher.vocabulary
