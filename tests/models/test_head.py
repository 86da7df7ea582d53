import torch

from potstill.models.head import finish_logits


def test_bias_comes_first_then_the_scale_then_the_soft_cap():
    product = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    bias = torch.tensor([0.5, 1.0], dtype=torch.float64)
    logits = finish_logits(product, bias, 4.0, 3.0)
    assert torch.equal(logits, 3.0 * torch.tanh(4.0 * (product + bias) / 3.0))


def test_logits_are_never_below_fp32():
    product = torch.ones(1, 2, dtype=torch.bfloat16)
    assert finish_logits(product, None, 1.0, None).dtype == torch.float32


def test_a_plain_head_costs_no_copy():
    product = torch.ones(1, 2)
    assert finish_logits(product, None, 1.0, None) is product
