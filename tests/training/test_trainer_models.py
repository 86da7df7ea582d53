"""Other students at the trainer: adapters, checkpointed activations, other families, heads that are not extracted."""

import copy
import logging

import pytest
import torch
from transformers import LlamaForCausalLM

from tiny import gpt2, llama
from toy_training import assert_equal, naive_step, samples, trained, trainer, weights


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_may_be_tied_to_the_embeddings(tmp_path, tied):
    rows, teacher = samples(), llama()
    expected = naive_step(llama(seed=1, layers=2, tie_word_embeddings=tied), copy.deepcopy(teacher), rows)
    student = llama(seed=1, layers=2, tie_word_embeddings=tied)
    found = trained(tmp_path, student, teacher=teacher, train_dataset=rows, max_steps=1)
    assert_equal(found, expected, tolerance=2e-6)


def test_gpt2_learns_from_llama(tmp_path):
    rows, teacher = samples(), llama()
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    expected = naive_step(gpt2(seed=1, layers=2, **still), copy.deepcopy(teacher), rows)
    student = gpt2(seed=1, layers=2, **still)
    assert_equal(trained(tmp_path, student, teacher=teacher, train_dataset=rows, max_steps=1), expected, tolerance=2e-6)


def test_checkpointed_activations_change_nothing(tmp_path):
    plain = trained(tmp_path, teacher=llama())
    assert_equal(trained(tmp_path, teacher=llama(), gradient_checkpointing=True), plain, tolerance=1e-7)


def _with_adapter(student):
    peft = pytest.importorskip("peft")
    torch.manual_seed(5)
    return peft.get_peft_model(
        student, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_lora_student_trains_its_adapter_alone(tmp_path, checkpointing):
    rows, teacher = samples(), llama()
    reference = _with_adapter(llama(seed=1, layers=2))
    frozen = {name for name, weight in reference.named_parameters() if not weight.requires_grad}
    assert any("lm_head" in name for name in frozen)
    before = weights(reference)
    for weight in reference.parameters():
        # Frozen weights have no gradient, and the reference step of SGD asks each for one.
        weight.grad = torch.zeros_like(weight)
    expected = naive_step(reference, copy.deepcopy(teacher), rows)
    student = _with_adapter(llama(seed=1, layers=2))
    cut = {"max_steps": 1, "gradient_checkpointing": checkpointing}
    found = trained(tmp_path, student, teacher=teacher, train_dataset=rows, **cut)
    assert_equal(found, expected, tolerance=2e-6)
    assert_equal({name: found[name] for name in frozen}, {name: before[name] for name in frozen})
    assert any(not torch.equal(found[name], before[name]) for name in found)


class _Doubled(LlamaForCausalLM):
    """A model with a change of its logits that its configuration does not name, and a forward of unnamed arguments."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 2
        return output


def _doubled(**fields):
    plain = llama(**fields)
    model = _Doubled(plain.config)
    model.load_state_dict(plain.state_dict())
    return model.eval()


def test_a_head_that_cannot_be_extracted_gives_way_to_the_logits(tmp_path, caplog, monkeypatch):
    # Of a class, it is said once in a process.
    monkeypatch.setattr("potstill.models.head_extraction._warned", set())
    rows, teacher = samples(), llama()
    expected = naive_step(_doubled(seed=1, layers=2), copy.deepcopy(teacher), rows)
    with caplog.at_level(logging.WARNING):
        found = trained(tmp_path, _doubled(seed=1, layers=2), teacher=teacher, train_dataset=rows, max_steps=1)
    assert "_Doubled" in caplog.text
    assert_equal(found, expected, tolerance=2e-6)


def test_a_teacher_s_head_that_cannot_be_extracted_gives_way_to_its_logits(tmp_path):
    rows, teacher = samples(), _doubled()
    expected = naive_step(llama(seed=1, layers=2), copy.deepcopy(teacher), rows)
    assert_equal(trained(tmp_path, teacher=teacher, train_dataset=rows, max_steps=1), expected, tolerance=2e-6)


def test_a_step_in_bfloat16_is_near_the_one_in_float32(tmp_path):
    rows, before = samples(), weights(llama(seed=1, layers=2))
    exact = trained(tmp_path, teacher=llama(), train_dataset=rows, max_steps=1)
    rounded = trained(tmp_path, teacher=llama(), train_dataset=rows, max_steps=1, bf16=True)
    moved, also = (torch.cat([(one[name] - before[name]).flatten() for name in before]) for one in (exact, rounded))
    assert all(weight.dtype == torch.float32 for weight in rounded.values())
    assert (moved - also).norm() < 0.03 * moved.norm()


def test_metrics_are_computed_from_logits(tmp_path):
    seen = []

    def metrics(prediction):
        seen.append(prediction.predictions.shape)
        return {"positions": float(prediction.predictions.shape[1])}

    rows = samples(4, seed=2)
    one = trainer(tmp_path, teacher=llama(), eval_dataset=rows, compute_metrics=metrics)
    longest = max(len(row["input_ids"]) for row in rows)
    assert one.evaluate()["eval_positions"] == longest
    assert seen == [(4, longest, 300)]
