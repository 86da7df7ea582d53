"""The passes of spans over the vocabulary, eager and compiled, against autograd of the softmax in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from potstill.losses import span_passes
from potstill.losses.logit_chunks import Logits
from potstill.losses.span_passes import Derivatives, numbers_of_rows, write_gradient

N, V = 7, 11
BEGINS, ENDS = torch.arange(V) % 3 == 0, torch.arange(V) == 4
LABELS = torch.tensor([0, 4, 3, 10, 4, 1, 6])
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "finished": {"bias": torch.linspace(-1, 1, V), "scale": 0.7, "softcap": 3.0},
}
COMPILED = pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
HEAD = pytest.mark.parametrize("head", HEADS)


def logits_of(dtype: torch.dtype, head: str = "plain") -> Logits:
    torch.manual_seed(0)
    return Logits((5 * torch.randn(N, V, dtype=torch.float64)).to(dtype), **HEADS[head])


def exact(logits: Logits) -> Tensor:
    found = Logits(logits.product.double(), logits.bias, logits.scale, logits.softcap).finished()
    return found.log_softmax(-1)


@COMPILED
@HEAD
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_numbers_of_a_token_are_those_of_its_softmax(dtype: torch.dtype, head: str, compile: bool) -> None:
    logits = logits_of(dtype, head)
    log_p = exact(logits)
    numbers, log_sum = numbers_of_rows(logits, LABELS, BEGINS, compile=compile)
    options = {"check_dtype": False, "rtol": 1e-5, "atol": 1e-5}
    at_label = log_p[torch.arange(N), LABELS]
    torch.testing.assert_close(numbers.log_p, at_label, **options)
    mass = log_p[:, BEGINS].logsumexp(-1)
    torch.testing.assert_close(numbers.log_mass, mass, **options)
    torch.testing.assert_close(log_sum, logits.finished().double().logsumexp(-1), **options)
    # Where a turn ends, the mass is the probability of its token.
    numbers, _ = numbers_of_rows(logits, LABELS, BEGINS, ENDS, compile=compile)
    torch.testing.assert_close(numbers.log_mass, torch.where(ENDS[LABELS], at_label, mass), **options)


def test_a_mass_of_nothing_is_a_number() -> None:
    logits = Logits(torch.tensor([[0.0, -1e5]]))
    numbers, _ = numbers_of_rows(logits, torch.tensor([0]), torch.tensor([False, True]))
    assert -100 < float(numbers.log_mass) < -50


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = logits_of(torch.float64)
    whole = numbers_of_rows(logits, LABELS, BEGINS, ENDS)
    monkeypatch.setattr(span_passes, "small_slices", lambda *given: [slice(0, 3), slice(3, 4), slice(4, 7)])
    (log_p, log_mass), log_sum = numbers_of_rows(logits, LABELS, BEGINS, ENDS)
    for found, expected in zip((log_p, log_mass, log_sum), (*whole[0], whole[1]), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


@pytest.mark.slow
@HEAD
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_gradient_is_that_of_autograd(dtype: torch.dtype, head: str) -> None:
    logits, of_p, of_mass = logits_of(dtype, head), torch.linspace(-1, 2, N), torch.linspace(1, -1, N)
    product = logits.product.double().requires_grad_()
    log_p = exact(Logits(product, logits.bias, logits.scale, logits.softcap))
    mass = log_p[:, BEGINS].logsumexp(-1)
    ((of_p * log_p[torch.arange(N), LABELS]).sum() + (of_mass * mass).sum()).backward()
    log_sum = logits.finished().logsumexp(-1, keepdim=True)
    others = (-of_p - of_mass)[:, None]
    words = (of_mass / mass.detach().float().exp())[:, None] + others
    write_gradient(logits, LABELS, Derivatives(log_sum, words, others, of_p[:, None]), BEGINS)
    exactness = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-4}
    torch.testing.assert_close(logits.product.double(), product.grad, **exactness)


@pytest.mark.slow
def test_nothing_is_compiled_again_for_other_numbers_of_rows() -> None:
    torch._dynamo.reset()
    for kernel in (span_passes._sums_kernel, span_passes._write_kernel):
        kernel.cache_clear()

    def both(rows: int, vocabulary: int) -> None:
        labels, factors = torch.zeros(rows, dtype=torch.long), torch.ones(3, rows, 1).unbind(0)
        logits, begins = Logits(torch.randn(rows, vocabulary)), torch.arange(vocabulary) % 3 == 0
        _, log_sum = numbers_of_rows(logits, labels, begins, compile=True)
        write_gradient(logits, labels, Derivatives(log_sum[:, None], *factors), begins)

    # A teacher's vocabulary, and then a student's.
    both(2, V)
    both(3, 2 * V)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows in (40, 17, 64):
            both(rows, V)
            both(rows, 2 * V)


def test_the_last_row_is_not_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_passes, "compiled", lambda kernel: kernel)
    for kernel in (span_passes._sums_kernel, span_passes._write_kernel):
        kernel.cache_clear()
    rows = list[int]()
    fused = span_passes._fused_sums
    monkeypatch.setattr(span_passes, "_fused_sums", lambda *given: rows.append(len(given[0])) or fused(*given))
    monkeypatch.setattr(span_passes, "small_slices", lambda *given: [slice(0, 3), slice(3, 6), slice(6, 7)])
    logits = logits_of(torch.float32)
    found, _ = numbers_of_rows(logits, LABELS, BEGINS, compile=True)
    assert rows == [3, 4]
    torch.testing.assert_close(found.log_p.double(), exact(logits)[torch.arange(N), LABELS], rtol=1e-5, atol=1e-5)
    # One row alone, and fp64, are not compiled.
    numbers_of_rows(logits.rows(0, 1), LABELS[:1], BEGINS, compile=True)
    numbers_of_rows(logits_of(torch.float64), LABELS, BEGINS, compile=True)
    assert rows == [3, 4]
    for kernel in (span_passes._sums_kernel, span_passes._write_kernel):
        kernel.cache_clear()
