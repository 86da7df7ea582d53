"""The head extracted from real models, against their own forward and their own loss."""

import logging
from collections.abc import Callable

import pytest
import torch
import transformers
from torch import Tensor, nn

from potstill.data.labels import IGNORE_INDEX
from potstill.data.positions import supervised_states
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.models import head_extraction
from potstill.models.head import finish_logits
from potstill.models.head_extraction import head_of, hidden_states, read_head, unwrapped

VOCABULARY = 97
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def llama(**changes: object) -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**SMALL, **changes}))


def gemma2() -> nn.Module:
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.5))


def cohere() -> nn.Module:
    return transformers.CohereForCausalLM(transformers.CohereConfig(**SMALL))


def granite() -> nn.Module:
    return transformers.GraniteForCausalLM(transformers.GraniteConfig(**SMALL, logits_scaling=8.0))


def gpt2() -> nn.Module:
    sizes = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    )


def phi() -> nn.Module:
    model = transformers.PhiForCausalLM(transformers.PhiConfig(**SMALL))
    nn.init.normal_(model.lm_head.bias)
    return model


FAMILIES = [llama, gemma2, cohere, granite, gpt2, phi]


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (2, 11))
    labels = ids.clone()
    labels[0, :5] = IGNORE_INDEX
    return ids, labels


def own_and_ours(model: nn.Module) -> tuple[Tensor, Tensor, dict[str, Tensor | None], dict[str, Tensor | None]]:
    """The model's own cross-entropy and the chunked loss's, each with the gradients of all parameters."""
    ids, labels = batch()
    own = unwrapped(model)(input_ids=ids, labels=labels).loss
    own.backward()
    gradients = take_gradients(model)
    hidden, _ = hidden_states(model, input_ids=ids)
    rows, following = supervised_states(hidden, {"labels": labels})
    head = read_head(model)
    assert head is not None
    ours, _ = distillation_loss(rows, head, following, None, [Loss("cross_entropy")], denominator=len(rows))
    ours.backward()
    return own, ours, gradients, take_gradients(model)


def take_gradients(model: nn.Module) -> dict[str, Tensor | None]:
    taken = {name: p.grad for name, p in unwrapped(model).named_parameters()}
    model.zero_grad(set_to_none=True)
    return taken


def assert_same_training(model: nn.Module) -> None:
    own, ours, expected, found = own_and_ours(model)
    torch.testing.assert_close(ours, own)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_models_own(family: Callable[[], nn.Module]) -> None:
    model = family().eval()
    head = head_of(model)
    assert head is not None
    ids, _ = batch()
    with torch.no_grad():
        hidden, _ = hidden_states(model, input_ids=ids)
        logits = finish_logits(hidden.flatten(0, 1) @ head.weight.T, head.bias, head.scale, head.softcap)
        torch.testing.assert_close(logits, model(input_ids=ids).logits.flatten(0, 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_training_through_the_tap_is_training_the_model(family: Callable[[], nn.Module]) -> None:
    model = family().train()
    assert head_of(model) is not None
    assert_same_training(model)


def test_scales_caps_and_biases_of_families() -> None:
    assert head_of(gemma2()).softcap == 0.5  # type: ignore[union-attr]
    assert head_of(cohere()).scale == 0.0625  # type: ignore[union-attr]
    assert head_of(granite()).scale == 0.125  # type: ignore[union-attr]
    assert head_of(phi()).bias is not None  # type: ignore[union-attr]
    tied = gpt2()
    assert head_of(tied).weight is tied.transformer.wte.weight  # type: ignore[union-attr]


def test_gradient_checkpointing() -> None:
    model = llama().train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert_same_training(model)


def test_bf16_models() -> None:
    assert head_of(llama().bfloat16()) is not None


def test_a_frozen_head_and_body() -> None:
    model = llama().train()
    model.lm_head.weight.requires_grad_(False)
    assert_same_training(model)
    assert own_and_ours(model)[3]["lm_head.weight"] is None


def test_a_teacher_without_gradient_and_a_model_left_as_it_was() -> None:
    model = llama()
    ids, _ = batch()
    before = model(input_ids=ids).logits
    state = torch.random.get_rng_state()
    head_of(model)
    with torch.no_grad():
        hidden, _ = hidden_states(model, input_ids=ids)
    assert not hidden.requires_grad
    assert torch.equal(state, torch.random.get_rng_state())
    assert "forward" not in vars(model.lm_head)
    assert torch.equal(model(input_ids=ids).logits, before)


def test_the_head_comes_back_after_an_error() -> None:
    model = llama()
    with pytest.raises(ValueError, match="exactly one of"):
        hidden_states(model, input_ids=None)
    assert "forward" not in vars(model.lm_head)


class Odd(nn.Linear):
    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden).sin()


def subclassed() -> nn.Module:
    model = llama()
    model.lm_head = Odd(32, VOCABULARY, bias=False)
    return model


def computing_something_else() -> nn.Module:
    model = llama()
    linear = model.lm_head
    linear.forward = lambda hidden: nn.functional.linear(hidden, linear.weight).sin()
    return model


def with_something_after_the_head() -> nn.Module:
    class More(transformers.LlamaForCausalLM):
        def forward(self, *args: object, **kwargs: object) -> object:
            outputs = super().forward(*args, **kwargs)
            outputs.logits = 30 * torch.tanh(outputs.logits / 30)
            return outputs

    return More(transformers.LlamaConfig(**SMALL))


@pytest.mark.parametrize("make", [subclassed, computing_something_else, with_something_after_the_head])
def test_other_heads_are_not_extracted_with_one_warning(
    make: Callable[[], nn.Module], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_extraction, "_warned", set())
    model = make()
    with caplog.at_level(logging.WARNING):
        assert head_of(model) is None
        assert head_of(model) is None
    assert [type(model).__name__ in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "lm_head"]])
def test_lora(targets: list[str]) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(llama(), peft.LoraConfig(target_modules=targets)).train()
    if "lm_head" in targets:
        assert head_of(model) is None
        return
    assert head_of(model) is not None
    assert_same_training(model)
    assert all(gradient is None or "lora" in name for name, gradient in own_and_ours(model)[3].items())


def test_lora_that_trains_a_copy_of_the_head() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = peft.get_peft_model(llama(), config).train()
    assert head_of(model) is not None
    assert_same_training(model)
    assert any("lm_head" in name and g is not None for name, g in own_and_ours(model)[3].items())
