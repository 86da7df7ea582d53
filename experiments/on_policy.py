"""What a student learns from its own answers, beside the same steps and the same time without them.

`make experiment-on-policy` runs it and writes docs/experiments/on_policy.md; a second call runs only what is missing.
`python -m experiments.on_policy --quick` rehearses it in minutes, and writes no page.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.measured import interval, outcome
from experiments.pages import write_page
from experiments.seeds import table
from experiments.sharing import beside
from potstill.console import say
from potstill.errors import UserError
from potstill.files.atomic import read_json
from potstill.files.jsonl_log import read_jsonl
from potstill.metrics.bootstrap import Sums, bootstrap, paired
from potstill.metrics.results import Paired, holm
from potstill.on_policy.evidence import PREFLIGHT
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import Recipe, load_recipe
from potstill.recipe.candidates import Candidate, own_candidates

HERE = Path(__file__).parent
RUNS = Path("runs/experiments/on_policy")
PAGE = Path("docs/experiments/on_policy.md")
TRAINED = ("distil", "control", "answers", "evaluate", "report", "replaced")
"""The folders that a run with the same start and the same teacher makes itself."""

OFF_POLICY, HALF, ALL, SAME_TIME = "off-policy", "half", "all", "same-time"
NAMES = {
    "teacher": "teacher",
    "start": "start, before training",
    "control": "fine-tuning alone",
    "student off-policy": "off-policy, the same steps",
    "student same-time": "off-policy, the same time",
    "student quarter": "a quarter on-policy",
    "student half": "half on-policy",
    "student all": "all on-policy",
    "student reverse": "half on-policy, reverse KL",
    "student jsd": "half on-policy, JSD",
    "student privileged": "itself as the teacher",
}
"""What each model of the comparison is called on the page, in its order."""
ON_POLICY = ("quarter", "half", "all", "reverse", "jsd", "privileged")
METRICS = ("accuracy", "loss", "stopped", "length")

WRITES_ALL = {"share": 1, "max_new_tokens": 80}
SHOWN = {"teacher": {"user": "{{ question }}\n{{ reference }}"}}
"""The prompts of the student that is its own teacher, as both learned to read them."""
PRIVILEGED = {"privileged": {"strategy": "ground-truth", "on_policy": WRITES_ALL | {"preflight": "warn"}}}
RANDOM = {
    "start": "scratch",
    "config": {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "intermediate_size": 384,
        "max_position_embeddings": 256,
    },
}
OF_STARTS = {OFF_POLICY: {}, ALL: {"on_policy": WRITES_ALL}}
"""The students of a start that is judged by its pre-flight."""
MODELS = {"early": "snapshots/step-50", "small": "student"}
"""The starts that are trained, each with its folder in the training."""
STARTS = ("random", "early")
"""The starts that are worse than that of all other students, the worst first."""

QUICK_CORPUS = ["corpus.questions.0.count=400", "corpus.held_out=0.05", "corpus.validation=20"]
QUICK_MODELS = [*QUICK_CORPUS, "pretrain.adder.training.max_steps=2"]
QUICK = [
    *QUICK_CORPUS,
    "distil.training.max_steps=2",
    "distil.training.logging_steps=1",
    "answers.max_new_tokens=8",
    "seeds=[0, 1]",
]


@dataclass(frozen=True, eq=False)
class Row:
    """What is known of one model: numerator and denominator of each metric for each seed and question, [S, U], and of
    each seed its seconds of training and the share of them in which it wrote."""

    sums: Mapping[str, Sums]
    seconds: Sequence[float] = ()
    writing: Sequence[float] = ()


@dataclass(frozen=True)
class Start:
    """A start: what its pre-flight said, and its students, without rollouts and with them alone."""

    preflight: Mapping[str, Any]
    before: Row
    off_policy: Row
    on_policy: Row


class Parts:
    """The runs of the experiment.

    Args:
        root: their folder.
        more: overrides of every recipe of students.
    """

    def __init__(self, root: Path, more: Sequence[str]) -> None:
        self._root, self._more = root, more
        self._models = root / "models"

    def train_models(self, overrides: Sequence[str]) -> None:
        """Train the teacher and the starts."""
        recipe = load_recipe(str(HERE / "on_policy_models.yaml"), overrides)
        run_recipe(recipe, Run(self._root / "models"), until="distil")

    def recipe(self, **given: Any) -> Recipe:
        """The recipe of students, with keys of it replaced."""
        where = {
            "teachers": {"adder": {"model": str(self._models / "pretrain" / "adder" / "model")}},
            "student": self.start_of("small"),
        }
        overrides = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in (where | given).items()]
        return load_recipe(str(HERE / "on_policy.yaml"), [*self._more, *overrides])

    def start_of(self, name: str) -> dict[str, Any]:
        """The key `student` of a start."""
        if name == "random":
            return RANDOM
        trained = self._models / "distil" / "base" / "seed-0"
        return {"start": "checkpoint", "model": str(trained / MODELS[name])}

    def run(self, part: str, recipe: Recipe, own: tuple[str, ...] | None = None) -> dict[str, Row]:
        """Run a part to its end, and read its models by their names in the comparison.

        Args:
            own: the folders that it makes itself, and does not share with the part `small`. None: all.
        """
        folder = self._root / part
        run = Run(folder) if own is None else beside(Run(self._root / "small"), folder, own)
        run_recipe(recipe, run)
        return rows_of(recipe, run)

    def judge_start(self, name: str) -> Start:
        """Train the students of a start. Where the pre-flight refuses, `preflight: warn` goes on all the same."""
        given = {"student": self.start_of(name), "experiments": OF_STARTS, "control": None, "seeds": [0]}
        own = ("student", *TRAINED)
        try:
            rows = self.run(name, self.recipe(**given), own)
        except UserError as refused:
            if not (self._root / name / "distil" / ALL / "seed-0" / PREFLIGHT).exists():
                raise
            say(f"refused: {refused}")
            anyway = OF_STARTS | {ALL: {"on_policy": WRITES_ALL | {"preflight": "warn"}}}
            rows = self.run(name, self.recipe(**given | {"experiments": anyway}), own)
        return self.start(name, rows)

    def start(self, name: str, rows: Mapping[str, Row]) -> Start:
        """A start whose students are trained."""
        students = (rows[f"student {OFF_POLICY}"], rows[f"student {ALL}"])
        return Start(self.preflight(name, ALL), rows["start"], *students)

    def preflight(self, part: str, student: str) -> Mapping[str, Any]:
        """What the pre-flight of a student's first seed found."""
        found: Mapping[str, Any] = read_json(self._root / part / "distil" / student / "seed-0" / PREFLIGHT)
        return found


def main() -> None:
    """Run everything and write the page."""
    quick = sys.argv[1:] == ["--quick"]
    parts = Parts(RUNS / "quick" if quick else RUNS, QUICK if quick else [])
    parts.train_models(QUICK_MODELS if quick else [])
    recipe = parts.recipe()
    rows = parts.run("small", recipe)
    steps = steps_in_the_time(recipe.distil.training["max_steps"], rows)
    longer = parts.recipe(experiments={SAME_TIME: {}}, control=None, distil__training__max_steps=steps)
    rows |= _students(parts.run(SAME_TIME, longer, TRAINED))
    itself = {"small": {"model": parts.start_of("small")["model"]}}
    alone = {"experiments": PRIVILEGED, "strategies": {"ground-truth": SHOWN}, "control": None, "capture": None}
    own = parts.recipe(teachers=itself, answers__teachers=False, **alone)
    rows |= _students(parts.run("privileged", own))
    starts = {name: parts.judge_start(name) for name in STARTS} | {"small": parts.start("small", rows)}
    text = page(rows, starts, parts.preflight("privileged", "privileged"), steps)
    write_page(PAGE, text, rehearsed=quick)


def _students(rows: Mapping[str, Row]) -> dict[str, Row]:
    return {name: row for name, row in rows.items() if name.startswith("student ")}


def steps_in_the_time(steps: int, rows: Mapping[str, Row]) -> int:
    """The number of steps off-policy that take as long as ``steps`` with half of the samples on-policy. Of each seed,
    both were trained shortly after each other; the median is not moved by one that something else slowed."""
    half, off_policy = (rows[f"student {name}"].seconds for name in (HALF, OFF_POLICY))
    return round(steps * statistics.median(ours / theirs for ours, theirs in zip(half, off_policy, strict=True)))


def rows_of(recipe: Recipe, run: Run) -> dict[str, Row]:
    """The models of a finished run, by their names in the comparison."""
    found: dict[str, list[Candidate]] = {}
    for candidate in own_candidates(recipe):
        if (run.path("answers") / candidate.folder).exists():
            found.setdefault(candidate.label, []).append(candidate)
    return {label: _row(run, candidates) for label, candidates in found.items()}


def _row(run: Run, seeds: Sequence[Candidate]) -> Row:
    each = [_answers(run, one) for one in seeds]
    sums = {metric: Sums(*(np.stack([seed[metric][part] for seed in each]) for part in (0, 1))) for metric in METRICS}
    if seeds[0].seed is None:
        return Row(sums)
    logs = [read_jsonl(run.path(one.step) / "log.jsonl") for one in seeds]
    shares = [[line["on_policy/time_writing"] for line in log if "on_policy/time_writing" in line] for log in logs]
    return Row(
        sums,
        [log[-1]["train_runtime"] for log in logs],
        [statistics.mean(of_seed) for of_seed in shares if of_seed],
    )


def _answers(run: Run, one: Candidate) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator of each metric, [U] each, in the order of the questions' ids."""
    folder = run.path("answers") / one.folder
    rows = sorted(read_jsonl(folder / "answers.jsonl"), key=lambda row: row["id"])
    verdicts = read_jsonl(run.path("evaluate") / "verdicts" / f"{one.folder}.jsonl")
    assert [row["id"] for row in rows] == [line["id"] for line in verdicts], folder
    scores = read_json(folder / "scores.json")
    order = np.argsort(scores["id"])
    ones = np.ones(len(rows))
    return {
        "accuracy": (np.asarray([float(line["verdict"] == "correct") for line in verdicts]), ones),
        "loss": (np.asarray(scores["nll"])[order], np.asarray(scores["tokens"], float)[order]),
        "stopped": (np.asarray([float(not row["hit_limit"]) for row in rows]), ones),
        "length": (np.asarray([float(row["tokens"]) for row in rows]), ones),
    }


def page(rows: Mapping[str, Row], starts: Mapping[str, Start], privileged: Mapping[str, Any], steps: int) -> str:
    """The page.

    Args:
        rows: the models, by their names in the comparison.
        starts: the starts by name, and what on-policy training made of each.
        privileged: the pre-flight of the student that teaches itself.
        steps: the number of steps off-policy in the time of half on-policy.
    """
    lines = ["## What each gave", "", *_models(rows), ""]
    lines += [f"“Off-policy, the same time” took {steps} steps. In accuracy, on the same questions:", ""]
    lines += [*_claims(rows), "", "## What the pre-flight said, and what came of it", "", *_starts(starts), ""]
    lines += [f"- {name}: {start.preflight['sentence']}" for name, start in starts.items()]
    lines += [f"- itself as the teacher: {privileged['sentence']}"]
    return (HERE / "on_policy.md").read_text(encoding="utf-8") + "\n".join(lines) + "\n"


def _models(rows: Mapping[str, Row]) -> list[str]:
    lines = []
    for label, name in NAMES.items():
        row = rows[label]
        seconds = f"{statistics.mean(row.seconds):.0f}" if row.seconds else "–"
        writing = f"{statistics.mean(row.writing):.0%}" if row.writing else "–"
        lines.append((name, *(_cell(label, row, metric) for metric in METRICS), seconds, writing))
    columns = ("model", "accuracy", "loss on references", "stopped", "length in tokens", "seconds of training")
    return table((*columns, "of these, writing"), lines)


def _cell(label: str, row: Row, metric: str) -> str:
    found = bootstrap(label, metric, row.sums[metric])
    digits = 1 if metric == "length" else 4 if metric == "loss" else 3
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _claims(rows: Mapping[str, Row]) -> list[str]:
    """Each student with rollouts against the students without, with p after Holm's correction for all of them, which
    decides."""
    lines = []
    others = {f"student {OFF_POLICY}": "the same steps", f"student {SAME_TIME}": "the same time"}
    for other, name in others.items():
        found = {f"student {one}": _accuracy(rows, f"student {one}", other) for one in ON_POLICY}
        corrected = holm({label: pair.p for label, pair in found.items()})
        lines += [_claim(NAMES[label], name, pair, corrected[label]) for label, pair in found.items()]
    against_none = _accuracy(rows, f"student {OFF_POLICY}", "control")
    return [*lines, _claim(NAMES[f"student {OFF_POLICY}"], "fine-tuning alone", against_none, against_none.p)]


def _claim(name: str, other: str, pair: Paired, p: float) -> str:
    told = outcome(pair) if pair.too_few or p < 0.05 else "no different beyond chance"
    return f"- {name}, against {other}: **{told}** ({_interval(pair)}, p = {p:.3f})."


def _accuracy(rows: Mapping[str, Row], one: str, other: str) -> Paired:
    return paired((one, other), "accuracy", (rows[one].sums["accuracy"], rows[other].sums["accuracy"]))


def _interval(pair: Paired) -> str:
    return interval(pair.difference, pair.low, pair.high)


def _starts(starts: Mapping[str, Start]) -> list[str]:
    lines = []
    for name, start in starts.items():
        rows = {"before": start.before, "off-policy": start.off_policy, "on-policy": start.on_policy}
        said = start.preflight
        shares = [f"{said[key]['value']:.0%}" for key in ("overlap", "stopped")]
        kl = f"{said['kl']['value']:.3f} [{said['kl']['low']:.3f}, {said['kl']['high']:.3f}]"
        each = [_cell(label, row, "accuracy") for label, row in rows.items()]
        pair = _accuracy(rows, "on-policy", "off-policy")
        lines.append((name, kl, *shares, f"`{said['verdict']}`", *each, _interval(pair)))
    columns = ("start", "KL, nats a token", "overlap", "stopped", "verdict", "accuracy before", "off-policy")
    return table((*columns, "all on-policy", "difference"), lines)


if __name__ == "__main__":
    main()
