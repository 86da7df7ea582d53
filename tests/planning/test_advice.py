"""Advice: each figure is that of the changed recipe's own plan."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from potstill.pipeline.graph import all_steps
from potstill.planning.advice import _changes, _more_ranks, advise
from potstill.planning.machine import Ranks, described_machines
from potstill.planning.needs import misfits, needs_of
from potstill.planning.plan import make_plan
from potstill.planning.show import shown
from potstill.recipe import load_recipe

GPU = described_machines()["rtx-3060-12gb"]
LARGE = ["distil.training.activation_checkpointing=false", "distil.training.per_device_train_batch_size=64"]
LARGE += ["distil.training.gradient_accumulation_steps=64"]


def replan(recipe, machine=GPU):
    return make_plan(recipe, all_steps(recipe), machine)


@pytest.fixture(scope="module")
def large():
    return replan(load_recipe("distilpythia", LARGE))


@pytest.fixture(scope="module")
def found(large):
    """All advice for what does not fit of it. Each piece is a plan, which takes seconds."""
    (misfit,) = misfits(large)
    return list(advise(large, misfit, replan))


def test_a_training_that_does_not_fit_is_told_what_helps(large, found):
    (misfit,) = misfits(large)
    assert misfit.step.startswith("distil")
    assert misfit.needed.expected > misfit.there
    keys = {change.partition("=")[0] for one in found for change in one.changes}
    assert {"capture", "distil.training.activation_checkpointing", "student.adapter"} <= keys
    assert "teachers.pythia-160m.quantization" in keys
    assert "distil.training.per_device_train_batch_size" in keys
    assert any(one.fits for one in found)
    page = shown(large, [(misfit, found)])
    assert "--set 'distil.training.activation_checkpointing=true'" in page


def test_a_figure_is_that_of_the_changed_recipe(found):
    for one in found:
        changed = load_recipe("distilpythia", [*LARGE, *one.changes])
        again = replan(changed, replace(GPU, devices=one.devices or 1))
        (needed,) = (need.needed for need in needs_of(again) if need.place == "device")
        assert needed == one.after
        assert one.fits == (one.after.expected <= GPU.memory)


def test_smaller_batches_keep_the_samples_of_a_step(found):
    for one in found:
        given = dict(change.split("=", 1) for change in one.changes)
        batch = given.get("distil.training.per_device_train_batch_size")
        if batch is not None:
            times = given["distil.training.gradient_accumulation_steps"]
            assert json.loads(batch) * json.loads(times) == 4096


def test_a_store_that_does_not_fit_keeps_fewer_tokens():
    capture = "capture={keep: top_k, k: 512}"
    plan = replan(load_recipe("distilpythia", [capture]), replace(GPU, free_disk=300e9))
    (misfit,) = misfits(plan)
    assert misfit.step is None
    found = list(advise(plan, misfit, replan))
    assert any(one.changes == ("capture.k=64",) and one.fits for one in found)
    assert any(one.changes == ("capture=null",) for one in found)


def few_layers(recipe):
    """An override: models of about as many weights in four layers, because each layer is traced in each plan."""
    models = load_recipe(recipe).facts.models
    for name, fields in models.items():
        models[name] = fields | {"num_hidden_layers": 4}
        models[name]["intermediate_size"] *= fields["num_hidden_layers"] // 4
    return f"facts.models={json.dumps(models)}"


@pytest.mark.parametrize(
    ("recipe", "overrides", "machine", "key"),
    [
        ("distilpythia", LARGE, GPU, 'distributed.strategy="fsdp2"'),
        (
            "gsm8k",
            ["teachers.llama-405b.device_map=null", few_layers("gsm8k")],
            described_machines()["a100-80gb"],
            'teachers.llama-405b.device_map="auto"',
        ),
    ],
)
def test_more_ranks_need_less_memory_on_each(recipe, overrides, machine, key):
    plan = replan(load_recipe(recipe, overrides), machine)

    def on_more_ranks(changed, other):
        # Changes for this machine are tried above. A plan of these models takes seconds.
        return plan if other.devices == machine.devices else replan(changed, other)

    misfit = next(one for one in misfits(plan) if one.place == "device")
    found = [one for one in advise(plan, misfit, on_more_ranks) if one.devices is not None]
    needed = [one.after.expected for one in found]
    assert len(found) >= 3
    assert needed == sorted(needed, reverse=True)
    assert all(one.changes == (key,) for one in found)
    page = shown(plan, [(misfit, found)])
    assert f"it needs a machine with {found[-1].devices} accelerators" in page


def test_the_ranks_of_this_machine_split_what_is_too_large():
    two = replace(GPU, devices=2)
    plan = replan(load_recipe("distilpythia", LARGE), two)
    (misfit,) = misfits(plan)
    (found,) = [
        one
        for one in advise(plan, misfit, replan)
        if one.changes == ('distributed.strategy="fsdp2"',) and one.devices is None
    ]
    assert found.after.expected < misfit.needed.expected


@pytest.mark.parametrize(("ranks", "changes"), [(1, []), (2, [{"distributed.strategy": "fsdp2"}])])
def test_ranks_without_accelerators_split_what_is_too_large_for_their_host(ranks, changes):
    plan = SimpleNamespace(
        recipe=load_recipe("distilpythia"), machine=described_machines()["cpu-laptop"], ranks=Ranks(ranks, ranks)
    )
    misfit = SimpleNamespace(place="host", step="distil/seed-0")
    assert [one.keys for one in _more_ranks(plan, misfit)] == changes


def test_what_cannot_be_split_is_no_advice():
    plan = replan(load_recipe("distilpythia", [*LARGE, "teachers.pythia-160m.quantization={load_in_8bit: true}"]))
    found = [one for misfit in misfits(plan) for one in advise(plan, misfit, replan)]
    assert found
    assert not [one for one in found if one.devices is not None]


def test_a_teacher_of_another_tokenizer_may_be_captured_as_spans():
    student = "student={start: scratch, config: {model_type: llama}}"
    crossing = [student, "tokenizer={vocab_size: 4000}", "distil.losses=[{kind: alm}]", "capture=null"]
    plan = SimpleNamespace(recipe=load_recipe("distilpythia", crossing))
    first = next(_changes(plan, SimpleNamespace(place="device", step="distil/seed-0")))
    assert first.keys == {"capture": {"keep": "spans"}}
