"""Importance follows its definition, on models whose parts the tests control."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

import tiny
from potstill.students.importance import (
    block_influence,
    loss_increases,
    mean_loss,
    most_important,
    norm_ratios,
    width_importance,
)
from potstill.students.prune_layers import layers_of, prune_layers
from potstill.students.prune_width_families import FAMILIES, widths_of


def batches(count=2, length=9):
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(count):
        ids = torch.randint(2, tiny.VOCABULARY, (3, length), generator=draw)
        mask = torch.ones_like(ids)
        mask[1, 5:] = 0
        found.append({"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)})
    return found


def loss_by_hand(model):
    total, tokens = 0.0, 0
    with torch.no_grad():
        for batch in batches():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            labels = batch["labels"][:, 1:]
            total += float(cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), reduction="sum"))
            tokens += int((labels != -100).sum())
    return total / tokens, tokens


MODELS = {"llama": tiny.llama, "gpt2": tiny.gpt2}


@pytest.mark.parametrize("family", MODELS)
def test_the_loss_is_the_models_own_over_supervised_tokens(family):
    model = MODELS[family]()
    loss, tokens = mean_loss(model, batches())
    expected, count = loss_by_hand(model)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert tokens == count


@pytest.mark.parametrize("family", MODELS)
def test_a_rise_is_that_of_the_model_without_the_layer(family):
    model = MODELS[family]()
    found = loss_increases(model, batches())
    for layer, rise in enumerate(found):
        others = [other for other in range(tiny.LAYERS) if other != layer]
        without = prune_layers(model, others).eval()
        assert rise == pytest.approx(loss_by_hand(without)[0] - loss_by_hand(model)[0], abs=1e-5)
    assert len(found) == tiny.LAYERS
    assert max(map(abs, found)) > 1e-3
    assert not any(module._forward_hooks or "forward" in vars(module) for module in model.modules())
    assert loss_by_hand(model) == loss_by_hand(MODELS[family]()), "the model is unchanged"


@pytest.mark.parametrize("family", MODELS)
def test_block_influence_is_how_far_a_layer_turns_the_states(family):
    model = MODELS[family]()
    sums, tokens = torch.zeros(tiny.LAYERS - 1, dtype=torch.float64), 0
    for batch in batches():
        with torch.no_grad():
            given = {name: batch[name] for name in ("input_ids", "attention_mask")}
            states = model(**given, output_hidden_states=True).hidden_states
        real = batch["attention_mask"].bool()
        tokens += int(real.sum())
        for layer in range(tiny.LAYERS - 1):
            before, after = states[layer][real].double(), states[layer + 1][real].double()
            sums[layer] += (1 - cosine_similarity(before, after, dim=-1)).sum()
    # A model's hidden states lack the last layer's output: they hold it only after the final norm.
    assert block_influence(model, batches())[:-1] == pytest.approx((sums / tokens).tolist())


@pytest.mark.parametrize("measure", [loss_increases, block_influence])
def test_a_layer_that_does_nothing_is_worth_nothing(measure):
    model = tiny.llama()
    with torch.no_grad():
        idle = layers_of(model)[2]
        idle.self_attn.o_proj.weight.zero_()
        idle.mlp.down_proj.weight.zero_()
    found = measure(model, batches())
    assert found[2] == pytest.approx(0, abs=1e-6)
    assert all(abs(figure) > 1e-4 for layer, figure in enumerate(found) if layer != 2)


def test_activations_are_means_over_tokens_and_then_l2_over_samples():
    model, family = tiny.llama(layers=1), FAMILIES["llama"]
    shape = widths_of(model.config)
    seen = {}
    layer = layers_of(model)[0]
    for name, module in (("heads", layer.self_attn.o_proj), ("neurons", layer.mlp.down_proj)):
        module.register_forward_pre_hook(lambda module, given, name=name: seen.setdefault(name, []).append(given[0]))
    for module in (layer.input_layernorm, layer.post_attention_layernorm, model.model.norm):
        module.register_forward_hook(lambda module, given, made: seen.setdefault("norms", []).append(made))
    found = width_importance(model, family, shape, batches(1))
    (batch,) = batches(1)
    real = batch["attention_mask"].bool()

    def over_samples(values):
        means = torch.stack([row[keep].mean(0) for row, keep in zip(values, real, strict=True)])
        return means.square().sum(0)

    heads = over_samples(seen["heads"][0].unflatten(-1, (4, 8)).norm(dim=-1)).sqrt()
    neurons = over_samples(seen["neurons"][0].abs()).sqrt()
    channels = sum(over_samples(made.abs()) for made in seen["norms"]).sqrt()
    torch.testing.assert_close(found.heads[0].float(), heads)
    torch.testing.assert_close(found.neurons[0].float(), neurons)
    torch.testing.assert_close(found.channels.float(), channels)


@pytest.mark.parametrize("family", MODELS)
def test_spreads_over_all_channels_are_one(family):
    found = norm_ratios(MODELS[family](), FAMILIES[family], batches(), range(32))
    assert len(found) == 2 * tiny.LAYERS + 1
    assert list(found.values()) == pytest.approx([1.0] * len(found))


def test_the_most_important_are_in_order_and_of_equals_the_first():
    assert most_important([0.1, 0.5, 0.5, -1.0, 0.9], 2) == [1, 4]
    assert most_important([0.1, 0.5, 0.5, -1.0, 0.9], 3) == [1, 2, 4]
    assert most_important([1.0, 1.0, 1.0], 2) == [0, 1]
