"""What a plan needs of each place, and what it says where that is too much."""

import json
from dataclasses import replace

import pytest

import minimal
from potstill.pipeline.graph import all_steps
from potstill.planning.advice import advise, otherwise
from potstill.planning.machine import described_machines
from potstill.planning.needs import misfits, needs_of
from potstill.planning.plan import make_plan
from potstill.planning.show import shown

FIELDS = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8192, "intermediate_size": 28672}
FIELDS |= {"num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000}
SMALL = "student={start: scratch, config: {model_type: llama, num_hidden_layers: 1, hidden_size: 64}}"
NODE = replace(described_machines()["h100-80gb"], host_memory=200e9)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Plans the distillation of a model of the hub with 2.2 billion weights into a small one."""
    facts = "facts.models=" + json.dumps({"people/wide": FIELDS})
    given = ["teachers.t.model=people/wide", facts, SMALL, "precision=bf16", "corpus.train_tokens=8000"]
    recipe = minimal.recipe(tmp_path_factory.mktemp("plan"), *given)
    return lambda **more: replan(recipe, replace(NODE, **more))


def replan(recipe, machine):
    return make_plan(recipe, all_steps(recipe), machine)


def need(plan, place):
    (found,) = (one for one in needs_of(plan) if one.place == place)
    return found


def test_a_machine_with_an_accelerator_has_three_places_and_a_fourth_where_the_cache_lies_apart(planned):
    plan = planned()
    assert [one.place for one in needs_of(plan)] == ["device", "host", "disk"]
    assert [one.place for one in needs_of(planned(free_cache=1e12))] == ["device", "host", "disk", "cache"]
    assert [one.place for one in needs_of(planned(host_memory=None, free_disk=None))] == ["device"]
    assert misfits(plan) == []
    assert "memory: " in shown(plan, [])


def test_a_host_through_which_the_models_do_not_fit_is_told_and_what_helps(planned):
    plan = planned(host_memory=2.5e9)
    (misfit,) = misfits(plan)
    assert misfit.place == "host"
    assert misfit.needed.low < misfit.there < misfit.needed.expected, "how they are loaded is not known"
    found = list(advise(plan, misfit, replan))
    keys = {change.partition("=")[0] for one in found for change in one.changes}
    assert "teachers.t.quantization" in keys
    assert not any("batch_size" in key for key in keys), "batches lie on the device"
    page = shown(plan, [(misfit, found)])
    assert f"of 2.5 GB ({misfit.step}): probably does not fit" in page
    assert f"to make the host memory of {misfit.step} fit, try:" in page


def test_each_process_loads_its_models_through_the_host(planned):
    one, four = (need(planned(devices=count), "host") for count in (1, 4))
    assert four.needed.expected > 2 * one.needed.expected
    assert f"({four.step}, 4 processes)" in shown(planned(devices=4), [])


def test_what_comes_from_the_hub_lies_on_the_disk_of_the_run_or_on_its_own(planned):
    together, apart = planned(), planned(free_cache=1e12)
    weights = 2 * together.models.teachers["t"].parameters.total
    assert together.fetched.expected == apart.fetched.expected == weights
    assert need(apart, "cache").needed == apart.fetched
    assert need(together, "disk").needed.expected - need(apart, "disk").needed.expected == pytest.approx(weights)
    assert "GB] of it are weights that come from the hub" in shown(together, [])
    (step,) = (one for one in together.steps if one.fetched.high)
    assert step.step == "student"
    assert step.to_dict()["fetched_bytes"][1] == weights


@pytest.mark.parametrize(("room", "place"), [({"free_cache": 1e9}, "cache"), ({"free_disk": 1e9}, "disk")])
def test_a_disk_that_is_too_small_for_what_comes_from_the_hub(planned, room, place):
    plan = planned(**room)
    (misfit,) = misfits(plan)
    assert (misfit.place, misfit.step) == (place, None)
    assert "HF_HOME" in otherwise(plan, misfit)
    assert "set HF_HOME to a folder on a larger disk" in shown(plan, [(misfit, list(advise(plan, misfit, replan)))])
    assert "HF_HOME" not in otherwise(planned(free_cache=1e12), need(planned(free_cache=1e12), "disk"))
