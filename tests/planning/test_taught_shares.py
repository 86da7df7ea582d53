"""The share of each teacher: counted, foreseen by the sizes of files, or not known."""

import pytest

import minimal
import toy_rows
from potstill.pipeline.graph import all_steps
from potstill.planning.amounts import amounts_of
from potstill.planning.machine import machine_named
from potstill.planning.plan import Known, make_plan, to_dict
from potstill.planning.ranges import Range
from potstill.planning.show import shown
from potstill.planning.taught_shares import UNREAD, taught_shares

MADE = {"train_samples": 10, "train_tokens": 320, "supervised_tokens": 300, "held_out_documents": 4}
MADE |= {"held_out_tokens": 100, "validation_samples": 0}
TAUGHT = {"maths": {"samples": 4, "supervised_tokens": 120}, "chat": {"samples": 3, "supervised_tokens": 90}}
TAUGHT |= {"no teacher": {"samples": 3, "supervised_tokens": 90}}


def test_without_rules_every_teacher_teaches_all(tmp_path):
    assert taught_shares(minimal.recipe(tmp_path), None) is None
    assert amounts_of(minimal.recipe(tmp_path), None, None).taught_by("t") == Range.exactly(1.0)


def test_a_finished_corpus_has_counted_them(tmp_path):
    found = taught_shares(toy_rows.by_row(tmp_path), MADE | {"taught": TAUGHT})
    assert found == {name: Range.exactly(share) for name, share in (("maths", 0.4), ("chat", 0.3), ("no teacher", 0.3))}


def test_before_that_sources_are_foreseen_by_their_sizes_and_columns_are_not(tmp_path):
    recipe = toy_rows.by_row(tmp_path)
    found = amounts_of(recipe, None, None)
    sizes = [(tmp_path / name).stat().st_size for name in ("numbers.jsonl", "more.jsonl")]
    assert found.taught["maths"].expected == pytest.approx(sizes[0] / sum(sizes))
    assert found.taught["chat"] == UNREAD
    assert found.notes[-1] == "how many rows `teachers.chat.when` matches is not known before they are read"
    every = toy_rows.by_row(tmp_path, "teachers.chat.when=null", "capture=null")
    assert amounts_of(every, None, None).taught["chat"] == Range.exactly(1.0)


def test_a_plan_counts_the_tokens_of_each_teacher(tmp_path):
    machine = machine_named("rtx-3060-12gb", tmp_path, (8, 8))

    def planned(*more):
        recipe, known = toy_rows.by_row(tmp_path, *more), Known(corpus=MADE | {"taught": TAUGHT})
        return make_plan(recipe, all_steps(recipe), machine, known)

    def seconds(plan, name):
        return next(one for one in plan.steps if one.step == name).seconds.expected

    captured = planned()
    page = shown(captured, [])
    for line in ("taught by maths: 120 supervised tokens", "taught by no teacher: 90 supervised tokens"):
        assert line in page
    assert to_dict(captured)["text"]["taught_shares"]["chat"] == [0.3, 0.3, 0.3]
    of_all = ("teachers.maths.when=null", "teachers.chat.when=null")
    whole = planned(*of_all)
    assert seconds(captured, "capture") < seconds(whole, "capture")
    disks = [next(one for one in plan.steps if one.step == "capture").disk.kept for plan in (captured, whole)]
    assert disks[0].low < 0.5 * disks[1].low
    live, every = (planned("capture=null", *more) for more in ((), of_all))
    assert seconds(live, "distil/seed-0") < seconds(every, "distil/seed-0")
