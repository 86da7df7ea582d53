"""Documents of one row do not attend to each other; models that cannot do this are refused."""

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from device_reads import DeviceReads
from potstill.data.collators import Collator
from potstill.data.labels import starts_document
from potstill.data.positions import PositionsCollator
from potstill.errors import UserError
from potstill.models.document_attention import check_documents_are_isolated, mask_is_known, model_inputs
from tiny import VOCABULARY, gpt2, gpt_neox, llama

DOCUMENTS = [[5, 6, 7, 8, 9, 10, 11], [12], [13, 14, 15, 16], [5, 6, 7]]
FAMILIES = {"llama": llama, "gpt2": gpt2, "gpt_neox": gpt_neox}


def row(documents):
    return {"input_ids": [token for one in documents for token in one], "documents": [len(one) for one in documents]}


def mamba():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "initializer_range": 0.2}
    return MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, **shape)).eval()


def bloom():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "n_layer": 1, "n_head": 2, "initializer_range": 0.2}
    return BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, **shape)).eval()


def mistral():
    """A model whose layers see only the last tokens."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    heads = {"num_key_value_heads": 2, "sliding_window": 3, "initializer_range": 0.2}
    return MistralForCausalLM(MistralConfig(vocab_size=VOCABULARY, **shape, **heads)).eval()


@torch.no_grad()
def alone(model, document):
    return model(input_ids=torch.tensor([document])).logits[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_those_of_each_document_alone(family, attention):
    model = FAMILIES[family]()
    model.set_attn_implementation(attention)
    batch = Collator(3)([row(DOCUMENTS), row(DOCUMENTS[:2][::-1])])
    found = model(**model_inputs(batch), use_cache=False).logits
    for logits, documents in zip(found, (DOCUMENTS, DOCUMENTS[:2][::-1]), strict=True):
        start = 0
        for document in documents:
            torch.testing.assert_close(logits[start : start + len(document)], alone(model, document))
            start += len(document)
    # The one thing that tells this from reading the row as one text:
    whole = alone(model, row(DOCUMENTS)["input_ids"])
    assert (found[0] - whole)[7:].abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_models_that_isolate_documents_are_accepted(family):
    model = FAMILIES[family]().train()
    state = torch.get_rng_state()
    check_documents_are_isolated(model, "student")
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("model", [mamba, bloom])
def test_a_model_that_reads_across_documents_is_refused(model):
    with pytest.raises(UserError) as told:
        check_documents_are_isolated(model(), "teacher")
    assert f"`corpus.attention: document`: the teacher ({model.__name__}) reads across documents" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_batch_padded_on_the_left_keeps_its_mask():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    batch = {"input_ids": torch.ones_like(mask), "attention_mask": mask, "position_ids": positions}
    assert not starts_document(batch).any()
    assert model_inputs(batch | {"labels": mask}).keys() == batch.keys()


def test_no_document_starts_without_position_ids():
    batch = Collator(0)([{"input_ids": [1, 2, 3]}, {"input_ids": [1]}])
    assert not starts_document(batch).any()
    assert model_inputs(batch).keys() == {"input_ids", "attention_mask"}


BATCHES = {
    "documents": [row(DOCUMENTS), row(DOCUMENTS[:2])],
    "pads": [row([one]) for one in DOCUMENTS],
    "full": [row([DOCUMENTS[0]]), row([DOCUMENTS[0][::-1]])],
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("family", [*FAMILIES.values(), mistral, mamba, bloom])
@torch.no_grad()
def test_a_mask_that_is_known_is_the_one_that_transformers_makes(family, kind, attention):
    model = family()
    if family in (mamba, bloom) and attention == "sdpa":
        pytest.skip("has no such attention")
    model.set_attn_implementation(attention)
    batch = PositionsCollator(Collator(3))(BATCHES[kind])
    expected = model(**model_inputs(batch), use_cache=False).logits
    with DeviceReads() as counted, mask_is_known(batch):
        found = model(**model_inputs(batch), use_cache=False).logits
    assert torch.equal(found, expected)
    # transformers 5.17 copies a number to the device for eager attention, which is no read.
    assert not [line for line in counted.lines if "masking_utils" in line and line.startswith("aten")]


@pytest.mark.parametrize("family", [*FAMILIES.values(), mistral, mamba, bloom])
@torch.no_grad()
def test_a_mask_without_pads_changes_nothing(family):
    model, batch = family(), Collator(3)(BATCHES["full"])
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert "attention_mask" not in model_inputs(batch)
    assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, model(input_ids=ids).logits)
