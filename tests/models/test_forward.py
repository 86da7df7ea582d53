"""The forward of a model over a batch, against the model's own outputs."""

import pytest
import torch

from potstill.data.labels import IGNORE_INDEX
from potstill.models.forward import forward, forward_with_layers
from potstill.models.head_extraction import head_of
from tiny import llama

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 0]])
BATCH = {
    "input_ids": IDS,
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    "labels": torch.tensor([[5, 6, IGNORE_INDEX, 8], [9, 10, 11, IGNORE_INDEX]]),
}
PLACES = ([0, 0, 1, 1], [0, 2, 0, 1])


@pytest.fixture
def model():
    return llama(1, layers=2).eval()


@torch.no_grad()
def test_states_at_supervised_tokens_and_the_labels_after_them(model):
    own = model(input_ids=IDS, attention_mask=BATCH["attention_mask"], output_hidden_states=True)
    states, labels = forward(model, head_of(model), BATCH)
    assert labels.tolist() == [6, 8, 10, 11]
    torch.testing.assert_close(states, own.hidden_states[-1][PLACES])
    logits, _ = forward(model, None, BATCH)
    torch.testing.assert_close(logits, own.logits[PLACES])


@torch.no_grad()
def test_layers_are_counted_from_the_first_after_the_embeddings(model):
    own = model(input_ids=IDS, attention_mask=BATCH["attention_mask"], output_hidden_states=True)
    states, _, layers, router = forward_with_layers(model, True, BATCH, [0, 1])
    assert sorted(layers) == [0, 1]
    torch.testing.assert_close(layers[0], own.hidden_states[1][PLACES])
    torch.testing.assert_close(layers[1], states)
    assert router is None
