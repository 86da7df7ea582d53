"""Device: the device that this process computes on, and the number format that suits it."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch


def device() -> torch.device:
    """The accelerator of this process, or else the CPU; each rank of a machine has its own accelerator."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))


def to_device(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch of the CPU on the device. It goes to a GPU from pinned memory, so that the host does not wait for it."""
    where = device()
    if where.type != "cuda":
        return {name: one.to(where) for name, one in batch.items()}
    return {name: one.pin_memory().to(where, non_blocking=True) for name, one in batch.items()}


def accelerator_has_bfloat16() -> bool:
    """Whether the accelerator multiplies bfloat16 matrices itself, without emulation."""
    supported = getattr(getattr(torch, device().type), "is_bf16_supported", None)
    return supported is not None and supported(including_emulation=False)


def device_name() -> str:
    """The device's name for manifests and reports."""
    return (
        torch.cuda.get_device_name()
        if device().type == "cuda"
        else f"{device().type}, {torch.get_num_threads()} threads"
    )


def run_dtype(precision: str) -> torch.dtype:
    """The number format `bf16` or `fp32` of a run, as torch names it."""
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


PROBE_ROWS, PROBE_ROUNDS = 256, 6
MOST_OPERATIONS = 1.5e9
"""The additions and multiplications of one product. With 14 products, a CPU of 75 GFLOP/s needs 0.3 s."""
CLEAR = 1.1
"""How many times as fast bfloat16 must be. A training also casts its weights, and not all of it is products."""


@dataclass(frozen=True)
class ProductTimes:
    """The seconds of one product in each format: the best of the first and of the second half of all rounds."""

    rows: int
    inputs: int
    outputs: int
    fp32: tuple[float, float]
    bf16: tuple[float, float]

    @property
    def speedup(self) -> float:
        """How many times as fast as float32 bfloat16 is."""
        return min(self.fp32) / min(self.bf16)

    @property
    def is_clear(self) -> bool:
        """Whether both halves agree on the faster format, by more than chance or other work would explain."""
        halves = [fp32 / bf16 for fp32, bf16 in zip(self.fp32, self.bf16, strict=True)]
        return min(halves) >= CLEAR or max(halves) <= 1 / CLEAR

    def rate(self, seconds: tuple[float, float]) -> float:
        """The additions and multiplications a second of a format, which is given by its seconds."""
        return 2 * self.rows * self.inputs * self.outputs / min(seconds)


def time_products(inputs: int, outputs: int) -> ProductTimes:
    """Time a linear layer in both formats by turns. A wide layer is measured as one of the same form with less width.

    A slow machine gets no fewer rows or rounds: beside other work most products are slow, and shorter ones more so. The
    best of several long ones is not.

    Args:
        inputs: the width of the layer's inputs.
        outputs: the width of its outputs.
    """
    shrink = min(1.0, (MOST_OPERATIONS / (2 * PROBE_ROWS * inputs * outputs)) ** 0.5)
    inputs, outputs = max(1, int(inputs * shrink)), max(1, int(outputs * shrink))
    where = device()
    pairs = {
        dtype: (torch.randn(PROBE_ROWS, inputs, device=where).to(dtype), torch.randn(outputs, inputs).to(where, dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    for pair in pairs.values():
        _seconds(*pair)
    found: dict[torch.dtype, list[float]] = {dtype: [] for dtype in pairs}
    for _ in range(PROBE_ROUNDS):
        for dtype, pair in pairs.items():
            found[dtype].append(_seconds(*pair))
    fp32, bf16 = ((min(times[: PROBE_ROUNDS // 2]), min(times[PROBE_ROUNDS // 2 :])) for times in found.values())
    return ProductTimes(PROBE_ROWS, inputs, outputs, fp32, bf16)


def _seconds(rows: torch.Tensor, weight: torch.Tensor) -> float:
    began = time.perf_counter()
    torch.nn.functional.linear(rows, weight)
    if rows.device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - began
