"""Device: the device that this process computes on, and the number format that suits it."""

import os

import torch


def device() -> torch.device:
    """The accelerator of this process, or else the CPU; each rank of a machine has its own accelerator."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))


def fast_bfloat16() -> bool:
    """Whether the hardware multiplies bfloat16 matrices itself, without emulation."""
    if device().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device().type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def device_name() -> str:
    """The device's name for manifests and reports."""
    return (
        torch.cuda.get_device_name()
        if device().type == "cuda"
        else f"{device().type}, {torch.get_num_threads()} threads"
    )


def run_dtype(name: str) -> torch.dtype:
    """The number format of a model that only runs forward; "auto" is bfloat16 if it is fast, else float32."""
    if name == "auto":
        return torch.bfloat16 if fast_bfloat16() else torch.float32
    return getattr(torch, name)
