"""The device, and the number format that suits it."""

import pytest
import torch

from potstill import device
from potstill.device import ProductTimes, accelerator_has_bfloat16, run_dtype, time_products, to_device


def test_a_number_format_has_torch_s_name():
    assert run_dtype("bf16") == torch.bfloat16
    assert run_dtype("fp32") == torch.float32


@pytest.mark.parametrize(
    ("fp32", "bf16", "speedup", "clear"),
    [
        ((4.0, 4.2), (2.0, 2.1), 2.0, True),
        ((2.0, 2.1), (4.0, 4.2), 0.5, True),
        ((1.0, 1.0), (1.0, 1.0), 1.0, False),
        ((1.05, 1.05), (1.0, 1.0), 1.05, False),
        ((1.0, 1.0), (1.05, 1.05), 1 / 1.05, False),
        # The halves disagree.
        ((4.0, 2.0), (2.0, 4.0), 1.0, False),
        ((4.0, 4.0), (2.0, 4.0), 2.0, False),
    ],
)
def test_an_answer_is_clear_if_both_halves_give_it(fp32, bf16, speedup, clear):
    times = ProductTimes(256, 8, 8, fp32, bf16)
    assert times.speedup == pytest.approx(speedup)
    assert times.is_clear is clear


def test_a_rate_is_that_of_the_best_time():
    times = ProductTimes(rows=10, inputs=5, outputs=3, fp32=(2.0, 3.0), bf16=(1.0, 0.5))
    assert times.rate(times.bf16) == 2 * 10 * 5 * 3 / 0.5


@pytest.mark.parametrize("widths", [(32, 64), (1, 1), (4096, 14336), (14336, 4096), (100_000, 7)])
def test_products_of_any_widths_are_timed_by_turns_and_stay_small(widths, monkeypatch):
    seen = []
    monkeypatch.setattr(device, "_seconds", lambda rows, weight: seen.append((rows, weight)) or 1.0)
    times = time_products(*widths)
    assert 2 * times.rows * times.inputs * times.outputs <= device.MOST_OPERATIONS
    assert times.inputs / times.outputs == pytest.approx(widths[0] / widths[1], rel=0.02)
    formats = [rows.dtype for rows, _ in seen]
    assert formats == [torch.float32, torch.bfloat16] * (device.PROBE_ROUNDS + 1), "one of each is not counted"
    assert all(weight.dtype == rows.dtype for rows, weight in seen)


def test_a_layer_is_really_timed():
    times = time_products(16, 32)
    assert min(*times.fp32, *times.bf16) > 0


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_a_batch_goes_to_a_gpu_from_pinned_memory(monkeypatch, kind):
    calls = []
    monkeypatch.setattr(device, "device", lambda: torch.device(kind))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *where, **how: calls.append((*where, how)) or self)
    sent = to_device({"input_ids": torch.ones(1), "labels": torch.zeros(1)})
    assert list(sent) == ["input_ids", "labels"]
    copied = (torch.device(kind), {"non_blocking": True} if kind == "cuda" else {})
    assert calls == (["pinned", copied] if kind == "cuda" else [copied]) * 2


@pytest.mark.parametrize("supported", [True, False])
def test_emulation_does_not_count_as_bfloat16_of_an_accelerator(supported, monkeypatch):
    monkeypatch.setattr(device, "device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or supported)
    assert accelerator_has_bfloat16() is supported


def test_an_accelerator_that_torch_knows_nothing_about_has_none(monkeypatch):
    monkeypatch.setattr(device, "device", lambda: torch.device("mps"))
    assert accelerator_has_bfloat16() is False
