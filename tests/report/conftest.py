"""Reports with made-up figures: the quickstart's, and those of runs that fail in some way."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from potstill.cost import Cost
from potstill.metrics.bootstrap import Resampling, Sums, bootstrap, paired
from potstill.metrics.results import Paired, Result
from potstill.metrics.speed import ModelSpeed, Speed
from potstill.report.data import (
    ANSWER_METRICS,
    HELD_OUT_METRICS,
    Curve,
    Metric,
    Model,
    Passage,
    Report,
    ReportedRollouts,
    ShownAnswer,
    ShownPrompt,
    ShownRollout,
    StageCost,
    Token,
)
from potstill.report.reuse import Reuse, StudentFolder
from report.exported import FILE, REFUSED
from report_passages import passage, span_passage

TEXT = (
    "The Loire is the longest river in France and the 171st longest in the world. With a length of 1,006 kilometres, "
    "it drains an area of 117,054 km², or more than a fifth of France’s land area.\nIts source is in the Cévennes, at "
    "1,350 m near Mont Gerbier de Jonc; it flows north through Nevers to Orléans, then west through Tours and Nantes "
    "until it reaches the Bay of Biscay."
)
OTHER = (
    "In Python, a < b and b > c is written a < b > c; “&” is another operator & <script>alert('no')</script> is text. "
    "日本語のテキスト and naïve café 🙂 are text as well.\n\n\tIndented, and two blank  spaces."
)
FEW = Resampling(resamples=1000)


def sums(units: int, seeds: int) -> dict[str, dict[str, Sums]]:
    """By metric and model: the scores of a distilled student, its control and the others on each passage."""
    random = np.random.default_rng(7)
    tokens = random.integers(30, 128, units).astype(float)
    bytes_ = tokens * random.normal(4.4, 0.3, units)
    hard = random.normal(0, 0.45, units)

    def nats(mean: float, noise: float, count: int = 1) -> np.ndarray:
        rows = [(mean + shift + hard + random.normal(0, noise, units)) * tokens for shift in (0, 0.012, -0.009)[:count]]
        return np.stack(rows) if count > 1 else rows[0]

    loss = {
        "teacher": nats(3.47, 0.05),
        "start": nats(11.5, 0.4),
        "student": nats(4.68, 0.1, seeds),
        "control": nats(4.78, 0.1, seeds),
    }
    kl = {"start": (8.2, 0.5, 1), "student": (1.84, 0.2, seeds), "control": (2.31, 0.25, seeds)}
    agree = {"start": (0.01, 1), "student": (0.392, seeds), "control": (0.351, seeds)}
    return {
        "loss": {model: Sums(value, tokens) for model, value in loss.items()},
        "bits_per_byte": {model: Sums(value / math.log(2), bytes_) for model, value in loss.items()},
        "perplexity": {model: Sums(value, tokens) for model, value in loss.items()},
        "kl_to_teacher": {model: Sums(nats(*figures), tokens) for model, figures in kl.items()},
        "agreement": {
            model: Sums(random.binomial(tokens.astype(int), share, (count, units)).astype(float), tokens)
            for model, (share, count) in agree.items()
        },
    }


def scored(seeds: int) -> tuple[tuple[Result, ...], tuple[Paired, ...]]:
    rows, pairs = [], []
    for metric, models in sums(304, seeds).items():
        how = {"transform": "exp" if metric == "perplexity" else "identity", "resampling": FEW}
        rows += [bootstrap(model, metric, scores, **how) for model, scores in models.items()]
        pairs += [
            paired(("student", other), metric, (models["student"], models[other]), **how)
            for other in ("control", "start")
        ]
    return tuple(rows), tuple(pairs)


def curves(seeds: int, steps: int = 50) -> tuple[Curve, ...]:
    random = np.random.default_rng(3)
    made = []
    for seed in range(seeds):
        for model in ("student", "control"):
            points = []
            for step in range(1, steps + 1):
                left = math.exp(-step / (steps / 4))
                cross = 4.6 + 0.1 * (model == "control") + 6.5 * left + random.normal(0, 0.08)
                kl = 1.8 + 6.2 * left + random.normal(0, 0.08)
                rate = 1e-3 * min(step / (steps / 10), 1) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
                point = {"step": step, "tokens": step * 2048, "learning_rate": rate, "cross_entropy": cross}
                both = {"forward_kl": kl, "loss": 0.5 * cross + 0.5 * kl}
                points.append(point | (both if model == "student" else {"loss": cross}))
            made.append(Curve(model, seed, tuple(points)))
    return tuple(made)


STAGES = (
    StageCost(
        "corpus", "14,905 passages to train on, 304 held out", Cost(14.2, 0.00021, 0.0001, "x"), 8_400_000, 2_914_560
    ),
    StageCost(
        "student", "15 of 30 layers: 0–5, 8, 11, 14, 17, 20, 23, 26, 28, 29", Cost(2.1, 2e-5, 1e-5, "x"), 162_000_000
    ),
    StageCost("capture", "top 64 and tail of 800 sequences", Cost(61, 0.0011, 0.0005, "x"), 19_660_800, 102_400),
    StageCost("distil", "student and control, 50 steps each", Cost(318, 0.0058, 0.0028, "x"), 324_000_000, 204_800, 2),
    StageCost("evaluate", "4 models on 304 passages", Cost(74, 0.0013, 0.0006, "x"), 41_000, 38_912),
)
METHOD = (
    "estimated: CPU, from its load and a rated power of 8 W; estimated: memory, from its size; "
    "CO2e: the world's average grid, 475 g/kWh"
)


def speed(*students: str) -> Speed:
    """Students and a control of about half the teacher's size, measured in five rounds."""
    random = np.random.default_rng(5)

    def rates(factor: float) -> dict[str, tuple[float, ...]]:
        each = {"prefill": 410.0, "prefill_batch": 520.0, "decode": 31.0, "decode_batch": 118.0}
        return {rate: tuple(factor * its * random.normal(1, 0.03, 5)) for rate, its in each.items()}

    own = rates(1.9)
    small = [
        ModelSpeed(
            name, 81_419_904, 325_700_000, "float32", 402_000_000, own, None if name == students[0] else students[0]
        )
        for name in (*students, "control")
    ]
    teacher = ModelSpeed("teacher", 134_515_008, 538_100_000, "float32", 640_000_000, rates(1.0))
    return Speed((teacher, *small), "cpu, 2 threads", 5, 8, 64, 16)


@cache
def report(seeds: int = 1) -> Report:
    rows, pairs = scored(seeds)
    return Report(
        title="Half of SmolLM2, healed by its own teacher",
        recipe="quickstart",
        story="SmolLM2-135M-Instruct (135M parameters, 30 layers) was distilled into a student of 81M and 15 layers, "
        "from 102,400 tokens of Wikipedia passages.",
        version="0.1.0",
        date="2026-11-21",
        host="2 cores, AMD EPYC, 23 GB",
        command="potstill run quickstart",
        rows=rows,
        paired=pairs,
        models=(
            Model("SmolLM2-135M-Instruct (Q4_1)", 134_515_008, 30, 576, 91_600_000, "teacher"),
            Model("15 layers of it", 81_419_904, 15, 576, 162_900_000, "student"),
            Model("15 layers of it, cross-entropy only", 81_419_904, 15, 576, 162_900_000, "control"),
        ),
        stages=tuple(replace(stage, cost=replace(stage.cost, method=METHOD)) for stage in STAGES),
        curves=curves(seeds),
        passages=(passage("Loire", TEXT, 1), passage("Operators <&>", OTHER, 2)),
        speed=speed("student"),
        notes=("No passage of the held-out set shares 13 words in a row with the training set.",),
    )


def wrote(text: str, model: str = "student") -> ReportedRollouts:
    """A training whose student wrote some words of a text for each prompt."""
    words = [f"{word} " for word in text.split()]
    points = tuple(
        {"step": step, "length": 40 + step % 7, "stopped": 0.9, "kl": 1 / step, "age": 1.0, "time_writing": 0.6}
        for step in range(1, 61)
    )
    rollouts = tuple((step, tuple(place / step for place in range(1, len(words) + 1))) for step in range(1, 61))
    shown = tuple(
        ShownRollout(step, step - 1, text, tuple(zip(words, kl, strict=True)), step % 2 == 0) for step, kl in rollouts
    )
    return ReportedRollouts(Curve(model, 0, points), rollouts, shown[:4], shown[-4:], text)


def without_control() -> Report:
    whole = report()
    return replace(
        whole,
        rows=tuple(row for row in whole.rows if row.model != "control"),
        paired=tuple(pair for pair in whole.paired if pair.b != "control"),
        curves=tuple(run for run in whole.curves if run.model != "control"),
    )


def negative() -> Report:
    """Student and control are exchanged: the teacher did harm."""
    whole = report()
    swap = {"student": "control", "control": "student"}
    rows = tuple(replace(row, model=swap.get(row.model, row.model)) for row in whole.rows)
    pairs = tuple(
        replace(pair, difference=-pair.difference, low=-pair.high, high=-pair.low) if pair.b == "control" else pair
        for pair in whole.paired
    )
    return replace(whole, rows=rows, paired=pairs)


def null() -> Report:
    """Student and control differ only by chance."""
    whole = report()
    pairs = tuple(
        replace(pair, difference=pair.difference / 20, low=pair.low / 20 - abs(pair.low), high=abs(pair.high))
        if pair.b == "control"
        else pair
        for pair in whole.paired
    )
    return replace(whole, paired=pairs)


def hostile() -> Report:
    """Markup in every name that a user can choose."""
    bad = "<script>window.broken = 1</script> & \"quotes\" 'too' </style>"
    whole = report()

    def answer(model: str | None) -> ShownAnswer:
        return ShownAnswer(model, bad, cut=True)

    return replace(
        whole,
        title=bad,
        recipe=bad,
        story=bad,
        host=bad,
        command=bad,
        notes=(bad,),
        units=bad,
        models=(Model(bad, 1, 1, 1, 1, "student"),),
        stages=(StageCost(bad, bad, Cost(1, None, None, f"not measured: {bad}")),),
        rows=(*whole.rows, replace(whole.rows[0], model=bad)),
        curves=(Curve(bad, 0, ({"step": 1, "loss": 2.0, bad: 1.0}, {"step": 2, "loss": 1.0, bad: 1.0})),),
        passages=(Passage(bad, (Token(bad), Token(bad, 1.0, 1.0, 1.0, ((bad, 0.5),), ((bad, 0.4),)))),),
        on_policy=(wrote(bad, bad),),
        prompts=(ShownPrompt(bad, ((bad, bad), ("user", 99 * bad)), tuple(map(answer, (None, "student", bad)))),),
    )


EFFECTS = {"base": 0.08, "ground-truth": 0.11, "teacher": 0.0, "confidence": -0.09, "another-question": 0.075}
"""By experiment, the gain in accuracy over the control; the last is a placebo."""


def answered(effects: dict[str, float], seeds: int, units: int) -> tuple[tuple[Result, ...], tuple[Paired, ...]]:
    """Models that answered questions; each question has a difficulty that is common to all models."""
    random, ones = np.random.default_rng(11), np.ones(units)
    ease = random.uniform(0, 1, units)

    def sums(share: float, times: int, luck: float = 0.1) -> Sums:
        drawn = [(ease + random.normal(0, luck, units) > 1 - share).astype(float) for _ in range(times)]
        return Sums(np.stack(drawn) if times > 1 else drawn[0], ones)

    shares = {"teacher": (0.8, 1), "start": (0.1, 1), "control": (0.4, seeds)}
    shares |= {f"student {name}": (0.4 + effect, seeds) for name, effect in effects.items()}
    rows, pairs = [], []
    for metric in ("accuracy", "loss", "hit_limit", "no_number"):
        right = metric == "accuracy"
        models = {name: sums(share if right else 1 - share, times) for name, (share, times) in shares.items()}
        rows += [bootstrap(name, metric, each, resampling=FEW) for name, each in models.items()]
        for student in (f"student {name}" for name in effects):
            placebo = ["student another-question"] if student == "student base" else []
            others = [name for name in ("start", "control", *placebo) if name in models]
            pairs += [
                paired((student, other), metric, (models[student], models[other]), resampling=FEW) for other in others
            ]
    return tuple(rows), tuple(pairs)


def steps(names: tuple[str, ...], seeds: int) -> tuple[StageCost, ...]:
    return tuple(
        StageCost(f"{stage}/{name}/seed-{seed}", f"loss {seed}.5", Cost(10.0, 1e-5, 1e-5, METHOD), 1000, 100)
        for stage in ("distil", "answers")
        for name in names
        for seed in range(seeds)
    )


@cache
def matrix(seeds: int = 3) -> Report:
    """Five students, one of them a placebo, that answered questions."""
    names = tuple(EFFECTS)
    rows, pairs = answered(EFFECTS, seeds, 1319)
    logged = curves(seeds)
    students = tuple(
        replace(
            run,
            model=f"student {name}",
            points=tuple(point | {"loss": point["loss"] + 0.15 * place} for point in run.points),
        )
        for place, name in enumerate(names)
        for run in logged
        if run.model == "student"
    )
    return replace(
        report(),
        title="Does the teacher’s prompt matter?",
        story="smollm2 (135M, 30 layers) → 5 students of 135M parameters in 30 layers, from 7,473 questions",
        rows=rows,
        paired=pairs,
        metrics=ANSWER_METRICS,
        units="held-out questions",
        asks=True,
        placebos=("student another-question",),
        curves=(*students, *(run for run in logged if run.model == "control")),
        passages=(),
        speed=speed(*(f"student {name}" for name in names)),
        models=(
            Model("smollm2", 134_515_008, 30, 576, None, "teacher"),
            Model("student before", 134_515_008, 30, 576, 162_900_000, "start"),
            *(
                Model(name, 134_515_008, 30, 576, 1_850_000, f"student {name}", f"strategy {name}", 460_800)
                for name in names
            ),
        ),
        stages=(*report().stages[:2], *steps(names, seeds)),
    )


def longest() -> Report:
    """Two experiments of three seeds, with standard tasks: as many metrics as a page may have."""
    whole, students = report(3), ("student from-the-large-teacher", "student from-two-teachers")
    tasks = [Metric(f"task-{n}/acc", f"a task of lm-eval, {n}", "right", "higher", True) for n in range(6)]
    alike = {"loss": ["loss", *(one.name for one in tasks)]}
    rows = [replace(row, metric=name) for row in whole.rows for name in alike.get(row.metric, [row.metric])]
    pairs = [replace(pair, metric=name) for pair in whole.paired for name in alike.get(pair.metric, [pair.metric])]

    def names(model: str) -> tuple[str, ...]:
        return students if model == "student" else (model,)

    return replace(
        whole,
        metrics=(*HELD_OUT_METRICS, *tasks),
        rows=tuple(replace(row, model=name) for row in rows for name in names(row.model)),
        paired=tuple(replace(pair, a=name) for pair in pairs for name in students),
        curves=tuple(replace(curve, model=name) for curve in whole.curves for name in names(curve.model)),
        speed=speed(*students),
        reuse=reuse(*students),
        exports=tuple(one | {"experiment": name} for name in students for one in (FILE, REFUSED)),
    )


def reuse(*students: str) -> Reuse:
    """A recipe with a long line, and students in deep folders."""
    recipe = "about: a recipe\ncorpus:\n  sources:\n  - path: " + 20 * "a/long/path/" + "\n"
    found = [StudentFolder(name, f"{8 * 'runs/'}{name}/student", name != students[0]) for name in students]
    return Reuse(tuple(found), recipe, 9 * recipe)


@pytest.fixture(scope="session")
def examples() -> dict[str, Callable[[], Report]]:
    """Functions that make the reports, by name."""
    return EXAMPLES


def across_tokenizers() -> tuple[Passage, ...]:
    """The passages of a run whose teacher has a tokenizer of its own."""
    document = "Held-out document"
    return (
        span_passage(f"{document} 4, typical: +0.12 bits per byte", TEXT, 1),
        span_passage(f"{document} 17, hardest: +0.61 bits per byte", OTHER, 2),
        span_passage(f"{document} 201, second hardest: +0.58 bits per byte", TEXT, 3),
    )


EXAMPLES: dict[str, Callable[[], Report]] = {
    "one seed": report,
    "three seeds": lambda: replace(report(3), on_policy=(wrote(TEXT),), reuse=reuse("student")),
    "spans": lambda: replace(report(), passages=across_tokenizers()),
    "no control": without_control,
    "negative": negative,
    "null": null,
    "hostile": hostile,
    "matrix": matrix,
    "matrix of one seed": lambda: matrix(1),
    "longest": longest,
}
