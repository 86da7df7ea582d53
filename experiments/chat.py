"""What to learn of conversations: the references or the teacher's own answers, with its distributions or without, and
all turns or the last.

`make experiment-chat` runs it and writes docs/experiments/chat.md; a second call runs only what is missing.
`python -m experiments.chat --quick` rehearses it in minutes, and writes no page.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.measured import measured
from experiments.pages import write_page
from experiments.seeds import differences, table, with_spread
from experiments.sharing import beside
from potstill.console import duration
from potstill.metrics.results import Result
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import Recipe, load_recipe
from potstill.recipe.candidates import trained_candidates

HERE = Path(__file__).parent
RUNS = Path("runs/experiments/chat")
PAGE = Path("docs/experiments/chat.md")
METRICS = ("loss", "kl_to_teacher", "stopped", "length_ratio", "rouge_l", "sentence_cosine", "repetition")
TRAINED = ("capture", "distil", "control", "answers", "evaluate", "report", "replaced")
"""The folders that a run with another corpus makes itself."""

BASE = "fine-tuning on the references"
ON_REFERENCES, ON_ANSWERS = "KD on the references", "KD on the teacher's answers"
ANSWERS_ALONE = "fine-tuning on the teacher's answers"
EVERY, LAST = "KD on every turn", "KD on the last turn alone"

GENERATE = {"by": "smollm2", "turns": "each", "max_new_tokens": 160}
MANY_TURNS = [
    "corpus.conversations=[{data: chat-demos, files: [glaive_toolcall_en_demo.json]}]",
    "corpus.held_out=0.25",
    "corpus.sequence_length=512",
    "distil.training.max_steps=40",
    "control=null",
]
"""The file whose conversations have up to seven turns of the assistant."""

PARTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "references": ([], {"control": BASE, "student": ON_REFERENCES}),
    "answers": ([f"generate={json.dumps(GENERATE)}"], {"control": ANSWERS_ALONE, "student": ON_ANSWERS}),
    "every": (MANY_TURNS, {"student": EVERY}),
    "last": ([*MANY_TURNS, "corpus.learn=last"], {"student": LAST}),
}
"""Of each run, its overrides, and what its trained models are called on the page."""

QUICK = [
    "corpus.train=24",
    "distil.training.max_steps=2",
    "distil.training.per_device_train_batch_size=2",
    "evaluate.documents=6",
    "answers.max_new_tokens=16",
    "answers.sentences=null",
    "seeds=[0, 1]",
]


@dataclass
class Found:
    """What the page tells of one variant, or of the teacher or the start."""

    seeds: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """By metric, the value of each seed; one value where a model has no seeds."""
    tokens: int = 0
    """The supervised tokens of its corpus."""
    seconds: float = 0.0
    """Of the training of one seed; and of the teacher's answers before it, which all seeds share."""
    before: float = 0.0


def main() -> None:
    """Run everything and write the page."""
    quick = sys.argv[1:] == ["--quick"]
    root, found = RUNS / ("quick" if quick else "runs"), dict[str, Found]()
    for part, (overrides, names) in PARTS.items():
        recipe = load_recipe(str(HERE / "chat.yaml"), [*overrides, *(QUICK if quick else [])])
        base = Run(root / "references")
        run = beside(base, root / part, TRAINED) if part == "answers" else Run(root / part)
        run_recipe(recipe, run)
        rows, _ = measured(run)
        if part == "references":
            found |= {model: Found(_values(rows, model)) for model in ("teacher", "start")}
        found |= {name: _found(recipe, run, rows, model) for model, name in names.items()}
        if not quick:  # after each run, so that a stopped experiment leaves what it has found
            write_page(PAGE, page(found))
    if quick:
        write_page(PAGE, page(found), rehearsed=True)


def _found(recipe: Recipe, run: Run, rows: Sequence[Result], model: str) -> Found:
    step = next(one.step for one in trained_candidates(recipe) if one.role == model)
    written = run.manifest("generate") if recipe.generate is not None else None
    corpus = written or run.manifest("corpus")
    trained = run.manifest(step)
    assert corpus is not None
    assert trained is not None
    before = [run.manifest("capture")] if model == "student" else []
    before += [written] if written is not None else []
    return Found(
        _values(rows, model),
        corpus["summary"]["supervised_tokens"],
        trained["cost"]["seconds"],
        sum(manifest["cost"]["seconds"] for manifest in before if manifest is not None),
    )


def _values(rows: Sequence[Result], model: str) -> dict[str, Sequence[float]]:
    mine = [row for row in rows if row.model == model]
    return {row.metric: list(row.seeds.values) if row.seeds else [row.value] for row in mine}


def page(found: Mapping[str, Found]) -> str:
    """The page, from what each variant gave; those of later runs may be missing."""
    head = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    variants = {name: one for name, one in found.items() if name not in ("teacher", "start")}
    metrics = [metric for metric in METRICS if metric in found["start"].seeds]
    of_turns = {name: one for name, one in found.items() if name in (EVERY, LAST)}
    others = {name: one for name, one in found.items() if name not in of_turns}
    lines = ["## What each is worth", "", *table(("model", *metrics), _rows(others, metrics)), ""]
    lines += ["Against fine-tuning on the references, seed by seed:", ""]
    of_seeds = {name: one.seeds for name, one in variants.items() if name in others}
    lines += [*differences(of_seeds, BASE, metrics), ""]
    lines += ["## What learning only the last turn costs", "", *_of_turns(of_turns, metrics), ""]
    lines += ["## What each costs", "", *_costs(variants), ""]
    lines += ["The times are those of the run. Where other work shared the core, it made them longer.", ""]
    return head + "\n".join(lines)


def _of_turns(found: Mapping[str, Found], metrics: Sequence[str]) -> list[str]:
    if len(found) < 2:
        return ["This part was not run yet. The command goes on with it when it is called again."]
    turns = [metric for metric in found[EVERY].seeds if "/turn" in metric]
    lines = [*table(("model", *metrics, *turns), _rows(found, [*metrics, *turns])), ""]
    of_seeds = {name: one.seeds for name, one in found.items()}
    return [*lines, "Against learning every turn, seed by seed:", "", *differences(of_seeds, EVERY, [*metrics, *turns])]


def _rows(found: Mapping[str, Found], metrics: Sequence[str]) -> list[tuple[str, ...]]:
    return [(name, *(_cell(one.seeds.get(metric)) for metric in metrics)) for name, one in found.items()]


def _cell(values: Sequence[float] | None) -> str:
    if not values:
        return "–"
    return with_spread(values) if len(values) > 1 else f"{values[0]:.4f}"


def _costs(variants: Mapping[str, Found]) -> list[str]:
    rows: list[tuple[Any, ...]] = [
        (name, f"{one.tokens:,}", duration(one.before) if one.before else "–", duration(one.seconds))
        for name, one in variants.items()
    ]
    return table(("variant", "supervised tokens", "once: answers and targets", "each seed: training"), rows)


if __name__ == "__main__":
    main()
