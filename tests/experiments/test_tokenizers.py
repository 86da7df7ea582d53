"""Sums are worked out rightly; both texts are scored apart; the page has every tokenizer and says what is missing."""

import numpy as np
import pytest

from experiments.tokenizers import (
    BEGINS_SUMS,
    BETTER,
    CONTROL,
    CUT,
    GEMMA,
    KINDS,
    KL,
    NO_DIFFERENT,
    OWN,
    PAGE,
    PARTS,
    PIECES,
    QUICK,
    TEACHER,
    WORSE,
    Found,
    bits_per_byte,
    both,
    page,
    passages,
    sums,
    when_it_is_worth_it,
    worked,
)
from potstill.metrics.held_out_text import DocumentScores

EVERY = {
    OWN: ("`alm`", "`shared_tokens`", "`uld`"),
    CUT: ("`alm`", KL),
    PIECES: ("`alm`", "`shared_tokens`"),
    GEMMA: ("`alm`",),
}
"""The students of each tokenizer, beside its control."""
ALIGNMENT = {"bytes": 100, "bytes_in_spans": 90, "spans": 10, "student_tokens": 15, "teacher_tokens": 20}
FACTS = {"parameters": 4_000_000, "tokens": 1000, "alignment": ALIGNMENT}


def found(of=None, seeds=3):
    """What each tokenizer's students gave; those of `alm` on sums are better by 0.1 than the control."""
    of = EVERY if of is None else of
    return {title: one(names, seeds) for title, names in of.items()}


def one(names, seeds):
    values = [2.0, 2.1, 2.3][:seeds]
    models = {name: dict.fromkeys(KINDS, values) for name in (*names, CONTROL)}
    models["`alm`"] = {KINDS[0]: values, KINDS[1]: [value - 0.1 for value in values]}
    fixed = {name: {kind: [1.25] for kind in KINDS} for name in (TEACHER, "start")}
    return Found(fixed | models, FACTS, {name: [60.0] * seeds for name in models}, 30.0)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("more", [[], QUICK])
def test_each_part_is_a_recipe(part, more):
    _, made = PARTS[part]
    recipe = made.recipe(2, more)
    assert recipe.seeds == [0, 1]
    assert [*recipe.variants] == ([*made.losses] or [None])
    assert (recipe.capture is None) == (bool(made.losses) and "capture" not in made.more)
    assert (recipe.control is not None) == made.control


def test_each_tokenizer_has_one_control():
    with_control = [title for title, part in PARTS.values() if part.control]
    assert sorted(with_control) == sorted({title for title, _ in PARTS.values()})


def test_the_parts_train_what_the_page_tells():
    trained = [(title, name) for title, part in PARTS.values() for name in part.names]
    assert sorted(trained) == sorted((title, name) for title, names in EVERY.items() for name in (*names, CONTROL))


def test_a_sum_is_worked_out_from_left_to_right():
    assert worked("15 - 43 + 2") == (
        "Work out 15 - 43 + 2 step by step: 15 - 43 = -28, -28 + 2 = -26. The answer is -26."
    )


def test_the_two_texts_are_told_apart_by_their_beginning():
    assert all(text.startswith(BEGINS_SUMS) and text.count(BEGINS_SUMS) == 6 for text in sums(3))
    assert len(sums(3)) == 3
    texts = passages(5)
    assert len(set(texts)) == 5
    assert not any(text.startswith(BEGINS_SUMS) for text in texts)


def test_bits_are_of_the_bytes_of_each_text():
    scores = DocumentScores.zeros([10, 20, 40])
    scores.add(np.asarray([0, 1, 2, 2]), {"nll": np.log(2) * np.asarray([5.0, 30.0, 60.0, 20.0])})
    is_sum = np.asarray([False, True, False, True])
    assert bits_per_byte(scores, is_sum) == pytest.approx({"passages": 85 / 50, "sums": 30 / 20})


def test_two_runs_of_a_tokenizer_are_told_as_one():
    first, second = one(("`alm`",), 3), Found({KL: {}}, {**FACTS, "alignment": None}, {KL: [60.0]}, 40.0)
    merged = both(first, second)
    assert {*first.seeds, KL} == {*merged.seeds}
    assert merged.facts["alignment"] == ALIGNMENT
    assert merged.before == 40


def test_the_page_has_every_tokenizer():
    text = page(found())
    assert "Not finished" not in text
    assert "not run yet" not in text
    assert text.count("| `alm` | sums | -0.1000, -0.1000, -0.1000 | -0.1000 |") == 5  # four controls, and KL
    worth, _, crossing = text.partition("## What crossing costs")
    assert f"| {KL} | passages | +0.0000" in worth
    assert f"| {CONTROL} |" not in crossing.partition("## What is compared")[0]
    assert f"| {OWN} | `uld` | 4,000,000 | 1,000 | 90.0% | 1.50 : 2.00 | – | 1 min 00 s |" in text
    assert f"| {GEMMA} | `alm` | 4,000,000 | 1,000 | 90.0% | 1.50 : 2.00 | 30 s | 1 min 00 s |" in text
    assert f"| {CUT} | {KL} | 4,000,000 | 1,000 | – | – | 30 s | 1 min 00 s |" in text
    assert f"| {TEACHER} | 1.2500 | 1.2500 |" in text


def test_a_page_of_fewer_seeds_says_so():
    first = page(found({OWN: ("`alm`",)}, seeds=1))
    assert f"**Not finished: `alm` with {OWN} (1 of 3 seeds); `shared_tokens` with {OWN} (0 of 3 seeds)" in first
    assert f"{CONTROL} with {CUT} (0 of 3 seeds)" in first
    assert first.count("not run yet") == 3
    assert page(found(seeds=2)).count("(2 of 3 seeds)") == sum(map(len, EVERY.values())) + len(EVERY)


def test_what_it_says_is_what_the_seeds_say():
    said = page(found()).partition("## Bits per byte")[0]
    better = "**better** on sums (-0.1000 [-0.1000, -0.1000])"
    equal = "**no different beyond chance** on passages (+0.0000 [+0.0000, +0.0000])"
    assert f"- `alm`, with {OWN}, against cross-entropy alone: {equal}; {better}." in said
    assert f"- **Crossing**, `alm` against {KL}, with {CUT}: {equal}; {better}." in said
    assert f"- `uld`, with {OWN}" in said
    assert f"- {CONTROL}" not in said


def test_unequal_numbers_of_seeds_are_compared_on_those_that_both_have():
    every = found()
    every[CUT].seeds[KL] = {kind: [2.0, 2.1] for kind in KINDS}
    assert f"| {KL} | passages | +0.0000, +0.0000 | +0.0000 |" in page(every)


def test_when_it_is_worth_it_counts_losses_across_tokenizers_alone():
    def seeds(shift):
        return {kind: [1.0 + shift, 1.01 + shift, 1.02 + shift] for kind in KINDS}

    same = {kind: [1.2, 0.9, 1.0] for kind in KINDS}
    models = {CONTROL: seeds(0.0), "`alm`": seeds(0.5), "`uld`": same, KL: seeds(-0.5)}
    told = "\n".join(when_it_is_worth_it({CUT: Found(models)}))
    assert "Of 4 comparisons" in told
    assert "0 are better, 2 no different beyond chance, and 2 worse" in told
    assert "not worth its price" in told
    gains = "\n".join(when_it_is_worth_it({CUT: Found(models | {"`alm`": seeds(-0.5)})}))
    assert "2 are better" in gains
    assert "not worth" not in gains
    assert when_it_is_worth_it({CUT: Found({CONTROL: seeds(0.0), KL: seeds(-0.5)})}) == []


def test_the_committed_page_counts_what_it_says():
    page_of_today = PAGE.read_text(encoding="utf-8")
    said = page_of_today.partition("## What it says")[2].partition("## ")[0]
    crossing = [line for line in said.splitlines() if line.startswith("- `")]
    better, same, worse = (sum(line.count(f"**{one}**") for line in crossing) for one in (BETTER, NO_DIFFERENT, WORSE))
    counted = (
        f"Of {better + same + worse} comparisons of a loss across tokenizers with cross-entropy alone, {better} are"
    )
    assert f"{counted} better, {same} no different beyond chance, and {worse} worse." in page_of_today
