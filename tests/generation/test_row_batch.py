"""Rows that are continued together get the logits that each of them gets alone."""

import pytest
import torch

from families import NOT_TOGETHER, TOGETHER
from potstill.generation.row_batch import RowBatch, continues_rows, decoding_options
from tiny import gpt2, llama


@torch.no_grad()
def alone(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False, **decoding_options(model)).logits[0, -1]


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("make", [llama, gpt2])
def test_rows_join_and_leave_and_keep_their_logits(make, prefix):
    model, shared = make(), list(range(40, 40 + prefix))
    texts = [[*shared, *range(20 + 30 * row, 28 + 31 * row)] for row in range(4)]
    batch = RowBatch(model, 3, shared)
    states = batch.read([text[:-4] for text in texts])

    def check(rows, ends):
        """The rows read the token before their ends; their logits must be those of the texts up to there."""
        ids = [texts[row][: len(texts[row]) - end] for row, end in zip(rows, ends, strict=True)]
        expected = torch.stack([alone(model, each) for each in ids])
        torch.testing.assert_close(batch.logits([each[-1] for each in ids]), expected)

    for row in (0, 1, 2):
        batch.join(states, row, len(texts[row]) - 4)
    check([0, 1, 2], [3, 3, 3])
    batch.leave(0)
    check([2, 1], [2, 2])
    batch.leave(1)
    batch.join(states, 3, len(texts[3]) - 4)
    check([2, 3], [1, 3])
    batch.join(states, 0, len(texts[0]) - 4)
    check([2, 3, 0], [0, 2, 3])


def test_prompts_of_one_token_have_nothing_to_read():
    model = llama()
    batch = RowBatch(model, 2)
    states = batch.read([[], []])
    batch.join(states, 0, 0)
    batch.join(states, 1, 0)
    found = batch.logits([30, 40])
    torch.testing.assert_close(found, torch.stack([alone(model, [30]), alone(model, [40])]))


@pytest.mark.parametrize("make", TOGETHER.values(), ids=TOGETHER)
def test_these_families_continue_rows_together(make):
    assert continues_rows(make(), longest=40)


@pytest.mark.parametrize("make", NOT_TOGETHER.values(), ids=NOT_TOGETHER)
def test_these_do_not(make):
    assert not continues_rows(make(), longest=40)


def test_a_window_counts_only_if_it_is_shorter_than_the_rows():
    model = TOGETHER["gemma2, softcap and a long window"]()
    assert continues_rows(model, longest=64)
    assert not continues_rows(model, longest=65)


def test_a_model_that_counts_positions_in_its_own_way_is_found_out():
    model = llama()
    forward = model.model.forward

    def own_positions(position_ids, past_key_values, **others):
        start = past_key_values.get_seq_length() if past_key_values is not None else 0
        counted = torch.arange(start, start + others["input_ids"].shape[1])[None]
        return forward(position_ids=counted, past_key_values=past_key_values, **others)

    model.model.forward = own_positions
    assert not continues_rows(model, longest=40)


def test_the_device_s_lack_of_memory_is_no_property_of_the_model(monkeypatch):
    model = llama()

    def full(*given, **named):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(model.model, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        continues_rows(model, longest=40)
