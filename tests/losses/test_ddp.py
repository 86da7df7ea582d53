"""The loss under DistributedDataParallel: two ranks of two sequences equal one process with four."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from potstill.data.labels import IGNORE_INDEX
from potstill.data.positions import supervised_states
from potstill.losses.chunked import distillation_loss
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import LogitsTarget
from potstill.models.head_extraction import head_of, hidden_states, read_head

VOCABULARY = 31


def tiny_model() -> nn.Module:
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=False)
    )


def step(model: nn.Module, rows: slice, ranks: int) -> None:
    """One backward over some sequences; the first two sequences have no supervised token at all."""
    torch.manual_seed(1)
    ids = torch.randint(0, VOCABULARY, (4, 6))
    labels = ids.clone()
    labels[:2] = IGNORE_INDEX
    teacher = torch.randn(4, 6, VOCABULARY)
    hidden, _ = hidden_states(model, input_ids=ids[rows])
    hidden, following = supervised_states(hidden, {"labels": labels[rows]})
    target = LogitsTarget(supervised_states(teacher[rows], {"labels": labels[rows]})[0])
    head = read_head(model)
    assert head is not None
    # DDP takes the mean over ranks: each rank's share is divided by the tokens of all, and multiplied by the ranks.
    loss, _ = distillation_loss(hidden, head, following, target, [Loss("forward_kl")], denominator=10 / ranks)
    loss.backward()


def rank_main(rank: int, folder: str, unused: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = DistributedDataParallel(tiny_model(), find_unused_parameters=unused)
    assert head_of(model) is not None
    for _ in range(2):  # DDP complains about a step that did not end in the next one
        model.zero_grad()
        step(model, slice(2 * rank, 2 * rank + 2), ranks=2)
    if rank == 0:
        torch.save({name: p.grad for name, p in model.module.named_parameters()}, f"{folder}/gradients.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("unused", [False, True])
def test_two_ranks_are_one_process(tmp_path: Path, unused: bool) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    spawn(rank_main, (str(tmp_path), unused), nprocs=2)
    model = tiny_model()
    step(model, slice(0, 4), ranks=1)
    gradients = torch.load(tmp_path / "gradients.pt")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-7, msg=name)
