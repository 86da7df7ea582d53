"""When kernels are compiled."""

import pytest

from potstill.losses import compiled_kernels
from potstill.losses.compiled_kernels import worth_compiling


def test_compiling_is_worth_it_for_long_runs_only() -> None:
    assert not worth_compiling(tokens=50 * 16 * 128, vocabulary=49152, device="cpu")
    assert worth_compiling(tokens=1e8, vocabulary=49152, device="cuda")


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_kernels.shutil, "which", lambda name: None)
    assert not worth_compiling(tokens=1e12, vocabulary=49152, device="cpu")
