"""What a model in training writes at a snapshot changes nothing of the training."""

import pytest
import torch

from potstill.data.labels import IGNORE_INDEX
from potstill.training.snapshot_texts import BEGINNING, beginning_of, continued
from tiny import llama, tokenizer


@pytest.mark.parametrize(
    ("labels", "length"),
    [
        ([IGNORE_INDEX] * 5 + list(range(55)), 5),
        (list(range(60)), BEGINNING),
        (None, BEGINNING),
        ([IGNORE_INDEX, *range(59)], BEGINNING),
    ],
)
def test_a_beginning_is_the_prompt_or_the_first_tokens(labels, length):
    sample = {"input_ids": list(range(60))} | ({} if labels is None else {"labels": labels})
    assert beginning_of(sample) == list(range(length))


def test_a_short_sample_is_halved():
    assert beginning_of({"input_ids": [7, 8, 9]}) == [7]
    assert beginning_of({"input_ids": [7]}) == [7]


@pytest.mark.parametrize("trains", [True, False])
def test_weights_mode_and_random_state_stay_as_they_are(trains):
    model = llama(0).train(trains)
    before, state = {name: one.clone() for name, one in model.state_dict().items()}, torch.get_rng_state()
    begun = [tokenizer()("the river")["input_ids"], tokenizer()("old town of stone")["input_ids"]]
    written = continued(model, tokenizer(), begun)
    assert [one["beginning"] for one in written] == ["the river", "old town of stone"]
    assert written == continued(model, tokenizer(), begun)
    assert model.training == trains
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_a_model_without_room_writes_nothing():
    model = llama(0)
    model.config.max_position_embeddings = 3
    assert continued(model, tokenizer(), [[5, 6, 7]]) == []
