"""Processes that share a run: how many there are, and what they need of one host together."""

from dataclasses import replace

import pytest

import minimal
from potstill.pipeline.graph import STAGES
from potstill.planning.machine import Machine, Ranks
from potstill.planning.memory import Memory
from potstill.planning.ranges import Range
from potstill.planning.ranks import ON_ALL_RANKS, on_host, ranks_of

CPU = Machine("a machine", baseline=Range(1, 2, 3))
GPUS = Machine("a node", kind="cuda", devices=4)
MEMORY = Memory(host={"process": Range(1, 2, 3), "weights": Range(10, 10, 10), "gradients": Range(5, 6, 7)})


def test_the_stages_of_all_ranks_are_those_of_the_pipeline():
    assert set(ON_ALL_RANKS) == {stage.name for stage in STAGES if stage.all_ranks}


def test_there_is_one_process_for_each_accelerator_unless_others_were_started(tmp_path):
    recipe = minimal.recipe(tmp_path)
    assert ranks_of(recipe, CPU) == Ranks(1, 1)
    assert ranks_of(recipe, GPUS) == Ranks(4, 4)
    assert ranks_of(minimal.recipe(tmp_path, "teachers.t.device_map=auto"), GPUS) == Ranks(1, 1)
    assert ranks_of(recipe, replace(GPUS, ranks=Ranks(16, 8))) == Ranks(16, 8)


@pytest.mark.parametrize(
    ("stage", "here", "expected"),
    [
        ("distil", 1, [16, 18, 20]),
        # At the least, libraries and weights have one place.
        ("distil", 3, [16 + 2 * 5, 3 * 18, 3 * 20]),
        # The others wait.
        ("evaluate", 3, [16, 18 + 2 * 2, 20 + 2 * 3]),
    ],
)
def test_processes_on_one_host_need_its_memory_together(stage, here, expected):
    assert on_host(MEMORY, stage, CPU, Ranks(8, here)).to_list() == expected
