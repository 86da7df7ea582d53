"""Positions: the lists of a loader are those of the batch itself, for every kind of batch."""

import pytest
import torch

from potstill.data.collators import Collator
from potstill.data.labels import IGNORE_INDEX, labels_of, starts_document, supervised_mask
from potstill.data.positions import (
    PADS,
    STARTS,
    SUPERVISED,
    PositionsCollator,
    pad_positions,
    start_positions,
    supervised_positions,
    supervised_states,
)
from potstill.data.prompts.collator import AlignedCollator, teacher_batch
from toy_training import packed_rows, prompted, samples

DOCUMENTS = packed_rows([row["input_ids"] for row in samples(9)])[0]
BATCHES = {
    "padded": (Collator(0), samples()),
    "full": (Collator(0), [{"input_ids": [4, 5, 6]}] * 2),
    "documents": (Collator(0), DOCUMENTS),
    "documents and pads": (Collator(0), [*DOCUMENTS, {"input_ids": [7]}]),
    "one row, nothing supervised": (Collator(0), [{"input_ids": [7]}]),
    "prompts of the teacher": (AlignedCollator(0), prompted()),
    "pads on the left": (AlignedCollator(0, side="left"), prompted()),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_the_lists_of_a_loader_say_what_the_batch_says(kind: str) -> None:
    collate, rows = BATCHES[kind]
    whole, plain = PositionsCollator(collate)(rows), collate(rows)
    for listed, batch in ((whole, plain), (teacher_batch(whole), teacher_batch(plain))):
        assert {SUPERVISED, PADS, STARTS} <= listed.keys()
        assert SUPERVISED not in batch
        for find, mask in (
            (supervised_positions, supervised_mask(batch)),
            (pad_positions, batch["attention_mask"] == 0),
            (start_positions, starts_document(batch)),
        ):
            expected = [at for at, there in enumerate(mask.flatten().tolist()) if there]
            assert find(listed).tolist() == find(batch).tolist() == expected
    assert {name: whole[name] for name in plain}.keys() == plain.keys()
    assert all(whole[name] is value or torch.equal(whole[name], value) for name, value in plain.items())


@pytest.mark.parametrize("kind", BATCHES)
def test_the_label_of_a_supervised_token_is_the_one_that_the_batch_teaches(kind: str) -> None:
    collate, rows = BATCHES[kind]
    batch = PositionsCollator(collate)(rows)
    states = torch.rand(*batch["labels"].shape, 2)
    found, following = supervised_states(states, batch)
    taught = supervised_mask(batch)
    assert torch.equal(found, states[taught])
    assert following.tolist() == labels_of(batch)[:, 1:][taught[:, :-1]].tolist()
    assert IGNORE_INDEX not in following


def test_labels_are_shifted_once_and_ignored_ones_left_out() -> None:
    labels = torch.tensor([[10, 11, IGNORE_INDEX, 13], [IGNORE_INDEX, IGNORE_INDEX, 22, 23]])
    hidden = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    rows, following = supervised_states(hidden, {"labels": labels})
    # The token before each label, never the label's own, and nothing after the last.
    assert following.tolist() == [11, 13, 22, 23]
    assert torch.equal(rows, torch.stack([hidden[0, 0], hidden[0, 2], hidden[1, 1], hidden[1, 2]]))
    assert supervised_positions({"labels": labels}).tolist() == [0, 2, 5, 6]


def test_only_supervised_tokens_get_a_gradient() -> None:
    hidden = torch.randn(1, 3, 2, requires_grad=True)
    supervised_states(hidden, {"labels": torch.tensor([[1, 2, IGNORE_INDEX]])})[0].sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[[1, 1], [0, 0], [0, 0]]]


def test_nothing_supervised() -> None:
    rows, following = supervised_states(torch.randn(2, 3, 4), {"labels": torch.full((2, 3), IGNORE_INDEX)})
    assert rows.shape == (0, 4)
    assert following.shape == (0,)
