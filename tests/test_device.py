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


class Clock:
    """Answers for the clock: each product takes its time per row, in its format."""

    def __init__(self, monkeypatch, fp32, bf16):
        self.seen, self.per_row = [], {torch.float32: fp32, torch.bfloat16: bf16}
        self.spent = 0.0
        monkeypatch.setattr(device, "_seconds", self.seconds)

    def seconds(self, rows, weight):
        self.seen.append((rows, weight))
        took = len(rows) * self.per_row[rows.dtype]
        self.spent += took
        return took

    @property
    def formats(self):
        return [rows.dtype for rows, _ in self.seen]


BOTH = [torch.float32, torch.bfloat16]
TRIAL = [torch.float32] * 2 + [torch.bfloat16] * 2


@pytest.mark.parametrize("widths", [(32, 64), (1, 1), (4096, 14336), (14336, 4096), (100_000, 7)])
def test_products_of_any_widths_are_timed_by_turns_and_stay_small(widths, monkeypatch):
    clock = Clock(monkeypatch, 1e-6, 1e-6)
    times = time_products(*widths)
    assert 2 * times.rows * times.inputs * times.outputs <= device.MOST_OPERATIONS
    assert times.inputs / times.outputs == pytest.approx(widths[0] / widths[1], rel=0.02)
    assert clock.formats == TRIAL + BOTH * (device.PROBE_ROUNDS + 1), "one of each is not counted"
    assert times.rows == device.PROBE_ROWS
    assert all(weight.dtype == rows.dtype for rows, weight in clock.seen)


# As a product of 1.5 GFLOP on a CPU of 150, 75, 30, 10 and 3 GFLOP/s.
@pytest.mark.parametrize("gigaflops", [150, 75, 30, 10, 3])
@pytest.mark.parametrize("bf16", [0.5, 1.0, 2.0])
def test_on_no_cpu_does_it_take_much_longer_than_the_limit(monkeypatch, gigaflops, bf16):
    fp32 = 1.5 / gigaflops / device.PROBE_ROWS
    clock = Clock(monkeypatch, fp32, fp32 * bf16)
    times = time_products(576, 1536)
    assert times.speedup == pytest.approx(1 / bf16)
    assert times.is_clear is (bf16 != 1.0)
    trial = 2 * device.TRIAL_ROWS * fp32 * (1 + bf16)
    assert clock.spent <= device.LIMIT + trial + 1e-9


@pytest.mark.parametrize(("fp32", "bf16"), [(1e-4, 4e-3), (4e-3, 1e-4)])
def test_a_format_that_is_emulated_is_not_timed_further(monkeypatch, fp32, bf16):
    # All rounds at this pace would take seven seconds.
    clock = Clock(monkeypatch, fp32, bf16)
    times = time_products(576, 1536)
    assert clock.formats == TRIAL
    assert clock.spent < device.LIMIT
    assert times.is_clear
    assert times.speedup == pytest.approx(fp32 / bf16)
    assert times.rate(times.bf16) == pytest.approx(2 * times.inputs * times.outputs / bf16)


def test_a_fast_machine_is_timed_to_the_end_however_unlike_its_formats_are(monkeypatch):
    # A few rows alone could mislead, and there is time.
    clock = Clock(monkeypatch, 1e-5, 1e-6)
    assert time_products(576, 1536).rows == device.PROBE_ROWS
    assert clock.formats == TRIAL + BOTH * (device.PROBE_ROUNDS + 1)


def test_the_halves_are_of_the_first_and_of_the_last_rounds(monkeypatch):
    taken = iter([1e-4] * 4 + [9, 9] + [rate for number in range(6) for rate in (6 - number, 10 + number)])
    monkeypatch.setattr(device, "_seconds", lambda *_: next(taken) / 1000)
    times = time_products(8, 8)
    assert times.fp32 == (0.004, 0.001)
    assert times.bf16 == (0.01, 0.013)


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
