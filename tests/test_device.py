"""The number format that models run in."""

import pytest
import torch

from potstill.device import run_dtype


@pytest.mark.parametrize(("fast", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_model_runs_in_bfloat16_where_hardware_multiplies_it(fast, expected, monkeypatch):
    monkeypatch.setattr("potstill.device.fast_bfloat16", lambda: fast)
    assert run_dtype("auto") == expected
    assert run_dtype("float16") == torch.float16
