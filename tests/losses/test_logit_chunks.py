"""A head that autocast casts is cast once for all micro-batches of an optimizer step."""

import pytest
import torch

from potstill.losses.chunked import distillation_loss
from potstill.losses.logit_chunks import CastWeights
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import HiddenTarget
from potstill.models.head import Head


def test_a_weight_is_cast_once_until_it_changes_or_the_step_ends() -> None:
    weight, casts = torch.nn.Parameter(torch.randn(9, 4)), CastWeights()
    first = casts.of(weight, torch.bfloat16)
    assert casts.of(weight, torch.bfloat16) is casts.of(weight.detach(), torch.bfloat16) is first
    assert casts.of(weight, torch.float32) is weight
    with torch.no_grad():
        weight.add_(1)
    assert torch.equal(casts.of(weight, torch.bfloat16), weight.bfloat16())
    casts.clear()
    assert casts.of(weight, torch.bfloat16) is not first


def test_parts_of_one_weight_are_different_weights() -> None:
    weight, casts = torch.randn(9, 4), CastWeights()
    assert [len(casts.of(weight[:rows], torch.bfloat16)) for rows in (9, 5, 7)] == [9, 5, 7]
    assert not torch.equal(casts.of(weight[:5], torch.bfloat16), casts.of(weight[1:6], torch.bfloat16))
    # A transposed weight has the same place and, if it is square, the same shape.
    square = torch.randn(4, 4)
    assert torch.equal(casts.of(square, torch.bfloat16).t(), casts.of(square.t(), torch.bfloat16))


@pytest.mark.parametrize("kind", ["forward_kl", "cross_entropy"])
def test_kept_casts_change_no_bit(kind: str) -> None:
    torch.manual_seed(0)
    hidden, weight, teacher = torch.randn(7, 4), torch.randn(9, 4), torch.randn(9, 4)
    labels, casts = torch.arange(7), CastWeights()

    def once(kept: CastWeights | None) -> list[torch.Tensor]:
        states, head = hidden.clone().requires_grad_(), Head(weight.detach().requires_grad_())
        with torch.autocast("cpu", torch.bfloat16):
            target = HiddenTarget(hidden, Head(teacher))
            loss, _ = distillation_loss(states, head, labels, target, [Loss(kind)], denominator=7.0, casts=kept)
        loss.backward()
        assert states.grad is not None
        assert head.weight.grad is not None
        return [loss, states.grad, head.weight.grad]

    expected = once(None)
    for _ in range(2):
        for one, other in zip(once(casts), expected, strict=True):
            assert torch.equal(one, other)
