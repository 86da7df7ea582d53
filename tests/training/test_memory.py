"""The least memory of a training: what is counted, what is told, and what is refused."""

from types import SimpleNamespace

import pytest
import torch

from potstill.errors import UserError
from potstill.training import memory
from potstill.training.arguments import training_arguments
from potstill.training.memory import (
    GIB,
    check_memory,
    check_parameters,
    loss_budget,
    memory_of_device,
    shown,
    trained_bytes,
)
from tiny import llama

ONE = sum(weight.numel() for weight in llama().parameters())


@pytest.fixture
def given(tmp_path):
    return lambda **training: training_arguments(training, "distil.training", tmp_path, seed=0)


@pytest.fixture
def room(monkeypatch):
    """Set the memory that there is, in bytes."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return lambda size: monkeypatch.setattr(memory, "memory_of_device", lambda: size)


@pytest.mark.parametrize(
    ("training", "each"),
    [
        ({}, 12),
        ({"optim": "adamw_torch"}, 12),
        ({"optim": "sgd"}, 4),
        ({"optim": "sgd", "optim_args": "momentum=0.9"}, 8),
        ({"optim": "adafactor"}, 4),
    ],
    ids=str,
)
def test_gradients_and_moments_of_each_trained_weight(given, training, each):
    assert trained_bytes(1000, given(**training)) == 1000 * each


@pytest.mark.parametrize(
    ("teachers", "needed"),
    [([], 16 * ONE), ([llama()], 20 * ONE), ([llama().bfloat16(), "a store"], 18 * ONE)],
    ids=["alone", "float32", "bfloat16"],
)
def test_it_is_told_and_just_enough_is_enough(given, room, capsys, teachers, needed):
    room(needed)
    check_memory(llama(), teachers, given(), "distil.training")
    assert f"needs at least {shown(needed)} of {shown(needed)} of memory" in capsys.readouterr().out
    room(needed - 1)
    with pytest.raises(UserError, match=r"`distil.training` needs at least .* of memory"):
        check_memory(llama(), teachers, given(), "distil.training")


def test_only_trained_weights_have_gradients(given, room):
    room(4 * ONE)
    check_memory(llama().requires_grad_(False), [], given(), "distil.training")


def test_ranks_share_the_memory_of_a_machine(given, room, monkeypatch):
    monkeypatch.setattr(memory, "device", lambda: torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    room(20 * ONE)
    with pytest.raises(UserError, match=r"needs at least"):
        check_memory(llama(), [], given(), "distil.training")


def test_a_model_that_is_spread_is_not_counted(room, capsys):
    room(0)
    spread = SimpleNamespace(fsdp=True, deepspeed=None)
    check_memory(llama(), [], spread, "distil.training")
    check_parameters(10**15, spread, "student.config")
    assert capsys.readouterr().out == ""


def test_a_model_that_is_not_made_yet(given, room):
    room(16 * 10**9)
    check_parameters(10**9, given(), "student.config")
    with pytest.raises(UserError, match=r"`student.config` needs at least 14.9 GiB of memory"):
        check_parameters(10**9 + 1, given(), "student.config")


def test_a_container_may_have_less_than_its_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "device", lambda: torch.device("cpu"))
    whole = memory_of_device()
    monkeypatch.setattr(memory, "CONTAINER", tmp_path / "memory.max")
    for text, size in (("max", None), (str(2**20), 2**20), (str(2**62), None)):
        (tmp_path / "memory.max").write_text(f"{text}\n")
        assert memory_of_device() == (size or memory_of_device())
    assert whole > 2**20


@pytest.mark.parametrize(
    ("free", "coming", "expected"),
    [(80, 0, 4), (40, 0, 4), (31.9, 0, 2), (40, 20, 2), (9, 0, 1), (1, 0, 0.25), (1, 8, 0.25), (0, 0, 0.25)],
)
def test_the_loss_gets_an_eighth_of_a_gpus_free_memory(monkeypatch, free, coming, expected):
    monkeypatch.setattr(memory, "free_memory", lambda device: int(free * GIB))
    assert loss_budget(torch.device("cuda"), coming * GIB) == expected * GIB


def test_the_loss_has_the_same_budget_on_every_cpu(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 100 * GIB)
    assert loss_budget(torch.device("cpu"), 0) == loss_budget(torch.device("cpu"), 50 * GIB) == GIB // 4
