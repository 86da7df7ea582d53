"""Slices of the vocabulary give the sums of whole logits, whatever head, dtype and number of tokens."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from potstill.losses import vocabulary_slices
from potstill.losses.span_scores import numbers_of
from potstill.losses.teacher_target import HiddenTarget, LogitsTarget
from potstill.losses.vocabulary_slices import slice_count
from potstill.models.head import Head

N, V, PADDING, H = 29, 24, 3, 5
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "finished": {"bias": torch.linspace(-1, 1, V + PADDING), "scale": 0.7, "softcap": 3.0},
    # A whole slice has no probability.
    "forbidden": {"bias": torch.where(torch.arange(V + PADDING) < 12, -torch.inf, 0.0)},
}


@pytest.fixture
def forgotten_kernels() -> Iterator[None]:
    """One kernel has at most eight forms in a process, and other tests need some of them."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("forgotten_kernels")
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_slices_are_as_whole_logits(
    dtype: torch.dtype, head: str, compile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(N, H).to(dtype), torch.randn(V + PADDING, H).to(dtype)
    settings = HEADS[head] | ({"bias": HEADS[head]["bias"].to(dtype)} if "bias" in HEADS[head] else {})
    outputs = HiddenTarget(hidden, Head(weight, **settings))
    labels = torch.randint(12, V, (N,))
    begins, ends = torch.arange(V) % 3 == 0, torch.arange(V) == 14
    whole = numbers_of(outputs, labels, begins, ends)
    monkeypatch.setattr(vocabulary_slices, "_WIDTH", 4)
    # The last tokens are fewer than the others; compiled, one alone would run eagerly.
    monkeypatch.setattr(vocabulary_slices, "_TOKENS", 8)
    assert slice_count(V, hidden.device) == 6
    sliced = numbers_of(outputs, labels, begins, ends, compile)
    rounding = 1e-12 if dtype == torch.float64 else 2e-6
    for one, other in zip(sliced, whole, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding)


def test_all_slices_have_one_size() -> None:
    device = torch.device("cpu")
    for vocabulary in (32_000, 49_152, 128_256, 151_936, 50_257, 26_841, 262_144):
        count = slice_count(vocabulary, device)
        assert count > 1
        assert vocabulary % count == 0
        assert 800 < vocabulary // count <= 3_200
    # A small vocabulary is one slice, and so is one without divisors.
    assert slice_count(3_000, device) == slice_count(49_157, device) == 1
    assert slice_count(32_000, torch.device("cuda")) == 1


def test_a_model_that_gives_whole_logits_has_no_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_slices, "_WIDTH", 4)
    logits, labels, begins = torch.randn(N, V), torch.randint(V, (N,)), torch.arange(V) % 3 == 0
    found = numbers_of(LogitsTarget(logits), labels, begins)
    torch.testing.assert_close(found.log_p, logits.log_softmax(-1)[torch.arange(N), labels])
