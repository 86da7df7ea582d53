"""What the profiler recorded, summed up: of a GPU its own kernels and copies, each once."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks.gpu_profile import PROFILED, covered, summary

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def event(name: str, first: float, last: float, *, on_gpu: bool, annotation: bool = False) -> Any:
    """An event as torch records it, in microseconds; an operator of the CPU has its kernels' time too."""
    return SimpleNamespace(
        name=name,
        device_type=DeviceType.CUDA if on_gpu else DeviceType.CPU,
        is_user_annotation=annotation,
        time_range=SimpleNamespace(start=first, end=last, elapsed_us=lambda: last - first),
        self_cpu_time_total=last - first,
        self_device_time_total=0 if annotation else 400_000,
    )


def recorded(*events: Any) -> Any:
    return SimpleNamespace(events=lambda: list(events))


EVENTS = (
    event("aten::mm", 0, 10_000, on_gpu=False),
    event("aten::mm", 10_000, 20_000, on_gpu=False),
    event("cudaStreamSynchronize", 20_000, 900_000, on_gpu=False),
    event("gemm", 0, 300_000, on_gpu=True),
    event("gemm", 300_000, 400_000, on_gpu=True),
    # On another stream, beside the kernel.
    event("Memcpy DtoH (Device -> Pinned)", 350_000, 450_000, on_gpu=True),
    event("Optimizer.step", 0, 1_000_000, on_gpu=True, annotation=True),
)


def test_a_gpu_is_idle_where_none_of_its_kernels_runs() -> None:
    found = summary(recorded(*EVENTS), 1.0, GPU)
    assert found["idle"] == pytest.approx(0.55)
    assert [(one["name"], one["seconds"], one["count"]) for one in found["top"]] == [
        ("gemm", 0.4, 2),
        ("Memcpy DtoH (Device -> Pinned)", 0.1, 1),
    ]


def test_waits_are_counted_on_both_sides() -> None:
    waits = summary(recorded(*EVENTS), 1.0, GPU)["waits_a_step"]
    assert waits["cudaStreamSynchronize"] == waits["Memcpy DtoH"] == 1 / PROFILED
    assert waits["aten::nonzero"] == 0


def test_on_a_cpu_operators_count() -> None:
    found = summary(recorded(*EVENTS), 1.0, CPU)
    assert found["idle"] == pytest.approx(0.1)
    assert [one["name"] for one in found["top"]] == ["cudaStreamSynchronize", "aten::mm"]


@pytest.mark.parametrize(
    ("spans", "length"),
    [([], 0), ([(0, 2), (3, 4)], 3), ([(3, 4), (0, 2)], 3), ([(0, 9), (1, 2), (8, 10)], 10), ([(0, 1), (1, 2)], 2)],
)
def test_what_spans_cover_together_counts_once(spans: list[tuple[float, float]], length: float) -> None:
    assert covered(spans) == length
