"""What each of two ranks does: the second has no weights, and gets its part of those of the first."""

import sys
from copy import deepcopy
from pathlib import Path

import torch
from torch import distributed

from potstill.models.sharding import gathered
from potstill.teachers.live import LiveTeacher
from tiny import gpt2, llama

FAMILIES = {"llama": llama, "gpt2": gpt2}


def main(folder: Path) -> None:
    distributed.init_process_group("gloo")
    rank, found = distributed.get_rank(), {}
    for name, make in FAMILIES.items():
        whole = make()
        given = deepcopy(whole) if rank == 0 else _without_weights(whole)
        teacher = LiveTeacher(given)
        teacher.shard(torch.device("cpu"))
        ids = torch.arange(12)[None]
        target = teacher.target({"input_ids": ids, "labels": ids})
        own = {id(one): one.to_local().nbytes for one in teacher.model.parameters()}
        found[name] = {
            "weights": all(torch.equal(gathered(one), whole.get_parameter(n)) for n, one in _named(teacher.model)),
            "logits": bool(
                torch.equal(target.hidden, LiveTeacher(whole).target({"input_ids": ids, "labels": ids}).hidden)
            ),
            "share": sum(own.values()) / sum(one.nbytes for one in whole.parameters()),
        }
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def _named(model):
    return list(model.named_parameters())


def _without_weights(whole):
    with torch.device("meta"):
        return type(whole)(whole.config).eval().requires_grad_(False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
