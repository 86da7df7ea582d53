"""The page reports gains, nulls and losses in the same words; the compared starts have equal size."""

import json

import pytest

from experiments.warmstart import HERE, LAYOUTS, METRICS, PACKED, RATES, SHAPE, STARTS, page
from potstill.metrics.results import Paired, Result, Spread
from potstill.models.from_scratch import from_scratch
from potstill.recipe import load_recipe
from potstill.students.prune_width import pruned_widths
from potstill.students.prune_width_families import widths_of
from tiny import tokenizer


def of_a_start(difference, loss):
    seeds = Spread((loss - 0.01, loss, loss + 0.01))
    rows = [
        Result(model, metric, loss, loss - 1, loss + 1, 99, seeds if model in ("student", "control") else None)
        for model in ("teacher", "start", "student", "control")
        for metric in METRICS
    ]
    low, high = difference - 0.1, difference + 0.1
    return rows, [Paired("student", "control", "loss", difference, low, high, 99, 0.5, None)]


def of_a_rate(last):
    where = [("teacher", None, None, 3.0), ("start", None, 0, 5.0)]
    where += [("student", seed, step, loss) for seed in (0, 1) for step, loss in ((3, 6.0), (40, last))]
    return [
        {"model": model, "seed": seed, "step": step, "metric": metric, "split": "reporting", "value": value}
        for model, seed, step, value in where
        for metric in ("loss", "lambada_here/acc", "lambada_here/perplexity")
    ]


def a_page(difference=0.0, last=4.0):
    starts = {name: of_a_start(difference, 4 + place) for place, name in enumerate(STARTS)}
    figures = {metric: [1.0, 1.1, 1.2] for metric in METRICS}
    layouts = dict.fromkeys((PACKED, *LAYOUTS), (100, figures))
    return page(starts, dict.fromkeys(STARTS, 1000), layouts, {rate: of_a_rate(last) for rate in RATES})


@pytest.mark.parametrize(
    ("difference", "said"), [(-0.2, "better"), (0.2, "worse"), (0.0, "no different beyond chance")]
)
def test_whether_the_teacher_helped_follows_from_the_interval(difference, said):
    assert a_page(difference).count(f"the teacher's targets are **{said}** than none") == len(STARTS)


def test_damage_and_recovery_are_computed_from_the_snapshots():
    text = a_page(last=4.0)
    assert f"- {RATES[0]}: of the loss that pruning cost, **50%** is back after 40 steps; at step 3 it is worse" in text
    assert "LAMBADA's perplexity is lowest at the end, and **4** after 40 steps." in text
    assert "LAMBADA's perplexity is lowest at step 3, 6, and **7** after 40 steps." in a_page(last=7.0)
    assert "**-100%** is back" in a_page(last=7.0)
    assert "| start | – | 5.0000 |" in text
    assert f"| {RATES[-1]} | 40 | 4.0000 ± 0.0000 |" in text


def test_starts_are_of_equal_size():
    sizes = []
    for student in STARTS.values():
        load_recipe(str(HERE / "warmstart.yaml"), [f"student={json.dumps(student)}"])
        fields = dict(SHAPE)
        if student["start"] == "prune_width":
            large = load_recipe(str(HERE / "warmstart_models.yaml")).pretrain["large"].config
            shape = pruned_widths(
                from_scratch(large, "config", tokenizer(), len(tokenizer()), 0, "meta").config,
                student["heads"],
                None,
                student["intermediate_size"],
                student["hidden_size"],
            )
            fields |= {"num_hidden_layers": large["num_hidden_layers"], "hidden_size": shape.hidden}
            fields |= {"num_attention_heads": shape.heads, "intermediate_size": shape.neurons}
        model = from_scratch(fields, "config", tokenizer(), len(tokenizer()), 0, "meta")
        assert widths_of(model.config).hidden == fields["hidden_size"]
        sizes.append(sum(weight.numel() for weight in model.parameters()))
    assert max(sizes) / min(sizes) < 1.1


def test_the_small_checkpoint_has_the_shape_of_the_other_students():
    models = load_recipe(str(HERE / "warmstart_models.yaml"))
    assert models.pretrain["small"].config == SHAPE
    assert models.pretrain["small"].training == models.pretrain["large"].training
