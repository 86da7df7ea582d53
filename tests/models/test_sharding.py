"""Sharding a frozen model; that several ranks compute the same with it is in tests/training/test_trainer_ranks.py."""

import socket
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor

import processes
from potstill.errors import UserError
from potstill.models.sharding import gathered, shard_frozen
from potstill.teachers.live import LiveTeacher
from tiny import gpt2, llama


@pytest.fixture
def one_rank(monkeypatch):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"tcp://localhost:{free.getsockname()[1]}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_sharded_model_computes_the_same_and_is_split_again_afterwards(one_rank, make):
    model, whole = make().requires_grad_(False), make()
    shard_frozen(model, torch.device("cpu"))
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, whole(input_ids=ids).logits)
    weights = dict(model.named_parameters())
    assert all(isinstance(weight, DTensor) for weight in weights.values())
    for name, weight in whole.named_parameters():
        assert torch.equal(gathered(weights[name]), weight)


def test_a_whole_tensor_is_gathered_as_it_is():
    tensor = torch.ones(3)
    assert gathered(tensor) is tensor


def test_a_teacher_that_is_split_already_is_refused(one_rank):
    teacher = LiveTeacher(llama())
    teacher.shard(torch.device("cpu"))
    with pytest.raises(UserError, match=r"is split among the ranks already.*load it again"):
        LiveTeacher(teacher.model)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two ranks saw, of which the second has no weights."""
    folder, tests = tmp_path_factory.mktemp("ranks"), Path(__file__).parents[1]
    processes.run_ranks(2, tests / "models" / "shard_ranks.py", folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_rank_without_weights_gets_its_part_of_those_of_the_first(two_ranks, family):
    for found in two_ranks:
        assert found[family]["weights"]
        assert found[family]["logits"]
        # GPT-2's head is its embeddings.
        assert found[family]["share"] < 0.75
