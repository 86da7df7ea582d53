"""The pre-flight says whether on-policy training is worth it, with intervals over prompts and in plain sentences."""

import json
from dataclasses import replace

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.metrics.bootstrap import Sums, bootstrap
from potstill.on_policy.preflight import MOST_KL, ReferenceSums, WrittenSums, verdict

FIGURES = {"kl": 0.03, "overlap": 0.9, "stopped": 0.97}
NO_BETTER, OFF_POLICY = "teacher_knows_no_better", "start_off_policy_first"


def written(prompts=64, samples=1, **figures):
    """Samples whose figures scatter around the given ones."""
    random, told = np.random.default_rng(0), FIGURES | figures
    count = prompts * samples
    tokens = random.integers(5, 60, count)
    around = random.normal(1, 0.1, count)
    return WrittenSums(
        np.repeat(np.arange(prompts), samples),
        tokens,
        told["kl"] * tokens * around,
        np.minimum(told["overlap"] * around, 1) * tokens,
        np.arange(count) < round(told["stopped"] * count),
    )


def references(gain, count=64, noise=0.05):
    random = np.random.default_rng(1)
    tokens = random.integers(5, 60, count)
    teacher = 1.2 + random.normal(0, 0.5, count)
    return ReferenceSums(tokens, teacher * tokens, (teacher + gain + random.normal(0, noise, count)) * tokens)


@pytest.mark.parametrize(
    ("figures", "gain", "expected", "said"),
    [
        ({}, 0.2, "go", "The student can learn on-policy: its KL to the teacher on its own answers is 0.03"),
        ({}, None, "go", "96.9% ["),
        ({}, 0.2, "go", "the student's loss minus the teacher's is +0.1"),
        ({"kl": 0.1}, 0.2, "go", "between what was seen to train (0.04) and what was seen to fail"),
        (
            {"kl": 0.4},
            0.2,
            OFF_POLICY,
            "Start off-policy first: the student's KL to the teacher on its own answers is 0.4",
        ),
        ({"overlap": 0.3}, 0.2, OFF_POLICY, "of the student's likeliest tokens are the teacher's"),
        ({"stopped": 0.2}, 0.2, OFF_POLICY, "of the student's answers end by themselves"),
        ({"stopped": 0.0}, None, OFF_POLICY, "only 0.0% [0.0%, "),
        ({}, 0.0, NO_BETTER, "not above zero beyond chance"),
        ({}, -0.2, NO_BETTER, "This teacher was not seen to know better here: the student's loss on the references"),
        ({"kl": 0.4}, -0.2, NO_BETTER, "nats per token, which is not above zero"),
        ({"kl": 0.0002}, 0.2, NO_BETTER, "There is nothing left to learn"),
        ({"kl": 0.0}, None, NO_BETTER, "KL of 0.00 [0.00, 0.00] nats"),
    ],
)
def test_each_rule_has_its_verdict_and_its_sentence(figures, gain, expected, said):
    found = verdict(written(**figures), None if gain is None else references(gain))
    assert found.verdict == expected
    assert said in found.sentence


def test_every_reason_is_told():
    found = verdict(written(kl=0.4, overlap=0.3, stopped=0.2))
    assert found.verdict == OFF_POLICY
    for said in ("KL to the teacher", "likeliest tokens are the teacher's", "end by themselves"):
        assert said in found.sentence


@pytest.mark.parametrize("name", ["kl", "overlap", "stopped"])
def test_a_figure_whose_interval_covers_the_limit_does_not_decide(name):
    limit, beyond = (MOST_KL, 1.02) if name == "kl" else (0.5, 0.98)
    # The figure itself is beyond its limit.
    sample = written(prompts=16, **{name: limit * beyond})
    if name != "stopped":
        field = {"kl": "reverse_kl"}.get(name, name)
        mean = getattr(sample, field).sum() / sample.tokens.sum()
        sample = replace(sample, **{field: getattr(sample, field) * limit * beyond / mean})
    found = verdict(sample, references(0.2))
    figure = getattr(found, name)
    assert figure.low < limit < figure.high
    assert found.verdict == "go"
    assert (name == "kl") == ("Training was seen to fail from 0.19 on" in found.sentence)


def test_a_teacher_that_is_better_only_by_chance_is_not_better():
    found = verdict(written(), references(0.05, noise=1.0))
    assert found.advantage.low < 0 < found.advantage.high
    assert found.verdict == NO_BETTER


def test_figures_are_ratios_of_sums_over_prompts():
    one = written(samples=3)
    found = verdict(one)
    assert (found.prompts, found.samples, found.kl.n) == (64, 192, 64)
    assert found.kl.value == pytest.approx(one.reverse_kl.sum() / one.tokens.sum())
    assert found.stopped.value == one.stopped.mean()
    by_prompt = Sums(one.reverse_kl.reshape(64, 3).sum(1), one.tokens.reshape(64, 3).sum(1))
    assert found.kl == bootstrap("student", "kl", by_prompt)


def test_neither_the_order_of_the_samples_nor_the_numbers_of_prompts_matter():
    one, order = written(samples=2), np.random.default_rng(4).permutation(128)
    mixed = WrittenSums(
        *(getattr(one, name)[order] for name in ("prompts", "tokens", "reverse_kl", "overlap", "stopped"))
    )
    assert verdict(mixed).kl.value == pytest.approx(verdict(one).kl.value)
    assert verdict(mixed).kl.high == pytest.approx(verdict(one).kl.high)
    assert verdict(replace(one, prompts=one.prompts * 7 + 1000)) == verdict(one)


def test_a_share_stays_a_share():
    found = verdict(written(prompts=3, overlap=0.98))
    assert found.overlap.high == 1.0
    assert found.stopped.high <= 1.0


def test_what_few_units_do_not_tell_is_said():
    found = verdict(written(prompts=8), references(-0.2, count=8))
    assert found.verdict == "go"
    assert "With fewer than 10 prompts" in found.sentence
    assert "Fewer than 10 references do not tell" in found.sentence
    assert "Fewer than 10" not in verdict(written(prompts=10), references(0.2, count=10)).sentence


def test_the_file_has_figures_verdict_and_sentence():
    found = verdict(written(), references(0.2), step=40)
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert list(told) == ["prompts", "samples", "step", "kl", "overlap", "stopped", "advantage", "verdict", "sentence"]
    assert (told["prompts"], told["samples"], told["step"], told["verdict"]) == (64, 64, 40, "go")
    for name in ("kl", "overlap", "stopped", "advantage"):
        assert told[name]["low"] < told[name]["value"] < told[name]["high"]
    assert told["advantage"]["value"] == pytest.approx(0.2, abs=0.02)
    assert verdict(written()).as_json()["advantage"] is None


@pytest.mark.parametrize(
    ("sample", "reference", "said"),
    [
        (written(prompts=1, samples=9), None, r"too few prompts \(1\), and an interval needs at least 2"),
        (written(), references(0.2, count=1), r"too few references \(1\)"),
        (written(kl=np.inf), None, "not a finite number in its prompts"),
        (written(kl=np.nan), None, "not a finite number in its prompts"),
        (written(), references(np.nan), "not a finite number in its references"),
        (replace(written(), tokens=np.zeros(64, dtype=int)), None, "no token to score in its prompts"),
    ],
)
def test_what_cannot_be_judged_is_said(sample, reference, said):
    with pytest.raises(UserError, match=said):
        verdict(sample, reference)
