"""Whole plans: published recipes without a network, notes in place of failures, JSON."""

import json

import pytest

from potstill.pipeline.graph import all_steps
from potstill.planning.machine import Machine, machine_named
from potstill.planning.needs import misfits
from potstill.planning.plan import make_plan, precision_on, to_dict
from potstill.planning.show import shown
from potstill.recipe import load_recipe

GPU = "rtx-3060-12gb"


def plan(recipe, machine, tmp_path, *overrides):
    loaded = load_recipe(recipe, overrides)
    return make_plan(loaded, all_steps(loaded), machine_named(machine, tmp_path, (8, 8)))


@pytest.fixture(scope="module")
def pythia(tmp_path_factory):
    return plan("distilpythia", GPU, tmp_path_factory.mktemp("plan"))


def test_a_published_recipe_is_planned_without_a_network(pythia):
    assert pythia.models.notes == ()
    assert pythia.schedules["distil"].steps.expected == 64
    distil = next(one for one in pythia.steps if one.step == "distil/seed-0")
    assert distil.memory.on_device.high < pythia.machine.memory
    assert distil.seconds.low < distil.seconds.expected < distil.seconds.high
    assert distil.kwh.expected == pytest.approx(distil.seconds.expected / 3600 * pythia.machine.watts.expected / 1000)
    assert distil.kwh.low < distil.kwh.expected < distil.kwh.high
    assert misfits(pythia) == []
    assert "lm-eval" in pythia.notes[-1], "nobody knows how long the tasks take"
    assert pythia.seconds is None
    assert pythia.known_seconds.expected > distil.seconds.expected


def test_a_plan_is_plain_json_and_a_page(pythia):
    told = json.loads(json.dumps(to_dict(pythia)))
    assert told["models"]["student"]["total"] == 70_426_624
    assert told["text"]["optimizer_steps"] == {"distil": [64.0, 64.0, 64.0]}
    assert set(told["steps"]["distil/seed-0"]) >= {"device_bytes", "host_bytes", "disk_bytes", "seconds"}
    page = shown(pythia, [])
    assert "70,426,624" in page
    assert "distil/seed-0" in page
    assert "fits" in page


def test_money_needs_a_price_and_a_currency(tmp_path):
    file = tmp_path / "mine.yaml"
    text = "{device_memory_gib: 24, tflops: {bf16: 100}, bandwidth_gb_s: 900, price_per_hour: 2"
    file.write_text(text + ", currency: EUR}")
    paid = plan("distilpythia", str(file), tmp_path)
    assert paid.steps[-1].money.expected == pytest.approx(2 * paid.steps[-1].seconds.expected / 3600)
    assert "EUR" in shown(paid, [])
    file.write_text(text + "}")
    assert any("`watts`" in note for note in paid.notes), "no power is known, so no energy is"
    assert paid.sum_of("kwh") is None
    assert paid.sum_of("money").low > 0
    unpaid = plan("distilpythia", str(file), tmp_path)
    assert unpaid.steps[-1].money is None
    assert any("`currency`" in note for note in unpaid.notes)
    assert unpaid.steps[-1].seconds is not None, "the rest of the plan is given"


@pytest.mark.parametrize("machine", ["nobody's", "{tflops: {fp32: 1}}", "{tflops: {bf16: 1}}", "{}", "["])
def test_what_is_not_known_of_a_machine_is_a_note_and_the_rest_is_given(tmp_path, machine):
    if machine[0] in "{[":
        (tmp_path / "m.yaml").write_text(machine)
        machine = str(tmp_path / "m.yaml")
    found = plan("distilpythia", machine, tmp_path)
    assert found.notes
    assert all(one.seconds is None for one in found.steps if one.step == "distil/seed-0")
    assert next(one for one in found.steps if one.step == "distil/seed-0").memory.on_host.expected > 1e9
    assert "70,426,624" in shown(found, [])


def test_a_model_that_cannot_be_had_is_a_note_and_the_rest_is_given(tmp_path):
    found = plan("distilpythia", GPU, tmp_path, "facts={}")
    assert [note for note in found.notes if "EleutherAI/pythia-160m" in note and "`facts.models`" in note]
    assert next(one for one in found.steps if one.step == "corpus").disk.kept.expected > 2e9
    page = shown(found, [])
    assert "distil/seed-0" in page
    assert "memory and time are not known without pythia-160m, student: see the notes" in page
    assert "and the steps whose time is not known" in page
    assert "memory: " not in page, "what fits cannot be told"


def test_auto_is_the_faster_format():
    recipe = load_recipe("quickstart")
    assert precision_on(recipe, Machine("unknown")) == "fp32"
    assert precision_on(recipe, Machine("unknown gpu", kind="cuda")) == "bf16"
    assert precision_on(load_recipe("quickstart", ["precision=bf16"]), Machine("any")) == "bf16"


def test_the_plan_knows_the_beginnings_that_models_continue(tmp_path):
    with_samples, without = (
        next(one for one in found.steps if one.step == "evaluate").seconds
        for found in (
            plan("distilpythia", GPU, tmp_path, "evaluate.tasks=[]", f"evaluate.samples={n}") for n in (50, 0)
        )
    )
    assert with_samples.expected > without.expected
