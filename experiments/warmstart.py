"""Ways to start a student at equal size and tokens, layouts at equal supervised tokens, and the effect of training on
pretrained weights.

`make experiment-warmstart` runs it and writes docs/experiments/warmstart.md; a second call runs only what is missing.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.measured import interval, measured, outcome
from experiments.pages import write_page
from experiments.seeds import differences, table, with_spread
from experiments.sharing import beside
from potstill.evaluation.snapshot_curves import measure
from potstill.files.atomic import write_text
from potstill.files.named_data import named_files
from potstill.metrics.results import Paired, Result
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import load_recipe

HERE = Path(__file__).parent
RUNS = Path("runs/experiments/warmstart")
PAGE = Path("docs/experiments/warmstart.md")
METRICS = ("loss", "kl_to_teacher")
SHAPE = {
    "model_type": "llama",
    "num_hidden_layers": 3,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
PRUNED = "every second layer"
STARTS: dict[str, dict[str, Any]] = {
    "from scratch": {"start": "scratch", "config": SHAPE},
    "a smaller checkpoint": {"start": "checkpoint", "model": str(RUNS / "models" / "pretrain" / "small" / "model")},
    PRUNED: {"start": "prune_layers", "from": "large", "layers": 3, "rule": "spread"},
    "the most important layers": {"start": "prune_layers", "from": "large", "layers": 3, "rule": "importance"},
    "all layers, narrower": {
        "start": "prune_width",
        "from": "large",
        "heads": 3,
        "hidden_size": 96,
        "intermediate_size": 264,
    },
}
PACKED = "packed"
LAYOUTS = {
    "packed, attention within documents": ["corpus.attention=document"],
    "padded": ["corpus.layout=padded", "distil.training.per_device_train_batch_size=17"],
}
"""The overrides of each layout; the base is packed text and a student with every second layer. Padded samples are not
full, so a step takes more of them and has the same number of supervised tokens."""
TRAINED = ("distil", "control", "evaluate", "report", "snapshots")
"""The folders that runs with the same start make themselves."""
RATES = ("1e-5", "1e-4", "1e-3")
LOSS, CORRECT, PERPLEXITY = "loss", "lambada_here/acc", "lambada_here/perplexity"


def main() -> None:
    """Run everything and write the page."""
    run_recipe(load_recipe(str(HERE / "warmstart_models.yaml")), Run(RUNS / "models"), until="pretrain")
    starts, sizes = {}, {}
    for number, (name, student) in enumerate(STARTS.items()):
        run = _run("starts", number, ("student", *TRAINED))
        run_recipe(load_recipe(str(HERE / "warmstart.yaml"), [f"student={json.dumps(student)}"]), run)
        starts[name], sizes[name] = measured(run), run.manifest("student")["summary"]["parameters"]
        if name == PRUNED:
            layouts = {PACKED: _layout(run)}
    for number, (name, overrides) in enumerate(LAYOUTS.items()):
        run = Run(RUNS / "layouts" / str(number))
        run_recipe(load_recipe(str(HERE / "warmstart.yaml"), ["control=null", *overrides]), run)
        layouts[name] = _layout(run)
    damage, tasks = {}, _tasks()
    for number, rate in enumerate(RATES):
        run = _run("damage", number, TRAINED)
        overrides = [f"distil.training.learning_rate={rate}", f"evaluate.tasks.0.path={tasks}"]
        recipe = load_recipe(str(HERE / "warmstart_damage.yaml"), overrides)
        run_recipe(recipe, run, until="distil")
        damage[rate] = measure(run.folder, "all")
    write_page(PAGE, page(starts, sizes, layouts, damage))


def _tasks() -> Path:
    """The folder of the LAMBADA task, over the data of this machine."""
    (passages,) = named_files("lambada", "test", "evaluate.tasks")
    text = (HERE / "tasks" / "lambada_here.yaml").read_text(encoding="utf-8")
    folder = RUNS / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "lambada_here.yaml", text.replace("LAMBADA", str(passages.resolve())))
    return folder


def _run(part: str, number: int, own: tuple[str, ...]) -> Run:
    """The first run of a part, or a run that shares all folders with it except ``own``."""
    first = Run(RUNS / part / "0")
    return beside(first, RUNS / part / str(number), own) if number else first


def _layout(run: Run) -> tuple[int, dict[str, list[float]]]:
    return run.manifest("corpus")["summary"]["supervised_tokens"], _of_seeds(measured(run)[0], "student")


def _of_seeds(rows: Sequence[Result], model: str) -> dict[str, list[float]]:
    return {row.metric: list(row.seeds.values) for row in rows if row.model == model and row.seeds}


def page(
    starts: Mapping[str, tuple[Sequence[Result], Sequence[Paired]]],
    sizes: Mapping[str, int],
    layouts: Mapping[str, tuple[int, dict[str, list[float]]]],
    damage: Mapping[str, Sequence[dict[str, Any]]],
) -> str:
    """The page.

    Args:
        starts: of each start, what its run's evaluation found.
        sizes: of each start, its parameters.
        layouts: of each layout, its supervised tokens and each seed's metrics.
        damage: of each learning rate, the rows of its snapshots.
    """
    head = (HERE / "warmstart.md").read_text(encoding="utf-8")
    lines = ["## Starts, at equal size and tokens", "", *_starts(starts, sizes), ""]
    lines += ["## Layouts, at equal supervised tokens", "", *_layouts(layouts), ""]
    lines += ["## Damage and recovery, by learning rate", "", *_damage(damage)]
    return head + "\n".join(lines) + "\n"


def _starts(found: Mapping[str, tuple[Sequence[Result], Sequence[Paired]]], sizes: Mapping[str, int]) -> list[str]:
    lines, rows = [], []
    for name, (measured_rows, pairs) in found.items():
        value = {row.model: row.value for row in measured_rows if row.metric == "loss"}
        beside_control = next(pair for pair in pairs if pair.metric == "loss" and pair.b == "control")
        difference = interval(beside_control.difference, beside_control.low, beside_control.high)
        lines.append(f"- {name}: the teacher's targets are **{outcome(beside_control)}** than none ({difference}).")
        each = [with_spread(_of_seeds(measured_rows, model)["loss"]) for model in ("student", "control")]
        rows.append((name, f"{sizes[name]:,}", f"{value['start']:.4f}", *each, f"{value['teacher']:.4f}"))
    columns = ("start", "parameters", "loss before", "student, mean ± sd", "control, mean ± sd", "teacher")
    students = {name: _of_seeds(rows_, "student") for name, (rows_, _) in found.items()}
    against = differences(students, PRUNED, METRICS)
    return [*table(columns, rows), "", *lines, "", f"Difference from “{PRUNED}”, seed by seed:", "", *against]


def _layouts(found: Mapping[str, tuple[int, dict[str, list[float]]]]) -> list[str]:
    rows = [
        (name, f"{tokens:,}", *(with_spread(figures[metric]) for metric in METRICS))
        for name, (tokens, figures) in found.items()
    ]
    columns = ("layout", "supervised tokens", *(f"{metric}, mean ± sd" for metric in METRICS))
    figures = {name: each for name, (_, each) in found.items()}
    against = differences(figures, PACKED, METRICS)
    return [*table(columns, rows), "", f"Difference from “{PACKED}”, seed by seed:", "", *against]


def _damage(found: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    first = next(iter(found.values()))
    lines = [
        (name, "–", *_cells([row for row in first if row["model"] == model and row["step"] == step]))
        for name, model, step in (("teacher", "teacher", None), ("start", "start", 0))
    ]
    for rate, rows in found.items():
        of_students = [row for row in rows if row["model"] == "student"]
        for step in sorted({row["step"] for row in of_students}):
            lines.append((rate, str(step), *_cells([row for row in of_students if row["step"] == step])))
    columns = ("learning rate", "step", "held-out loss", "LAMBADA, correct", "LAMBADA, perplexity")
    return [*table(columns, lines), "", *(_sentence(rate, rows) for rate, rows in found.items())]


def _values(rows: Sequence[dict[str, Any]], metric: str) -> list[float]:
    return [row["value"] for row in rows if row["metric"] == metric and row["split"] == "reporting"]


def _cells(rows: Sequence[dict[str, Any]]) -> list[str]:
    each = [_values(rows, metric) for metric in (LOSS, CORRECT, PERPLEXITY)]
    return [with_spread(values) if len(values) > 1 else f"{values[0]:.4f}" for values in each]


def _sentence(rate: str, rows: Sequence[dict[str, Any]]) -> str:
    """How much of the loss from pruning was recovered, and whether the student was ever worse than its start."""

    def of(model: str, metric: str) -> float:
        return _values([row for row in rows if row["model"] == model], metric)[0]

    of_students = [row for row in rows if row["model"] == "student"]
    steps = sorted({row["step"] for row in of_students})
    loss, perplexity = (
        {step: statistics.mean(_values([row for row in of_students if row["step"] == step], metric)) for step in steps}
        for metric in (LOSS, PERPLEXITY)
    )
    last, worst, best = steps[-1], max(loss, key=lambda step: loss[step]), min(perplexity, key=lambda s: perplexity[s])
    back = (of("start", LOSS) - loss[last]) / (of("start", LOSS) - of("teacher", LOSS))
    worse = loss[worst] > of("start", LOSS)
    damage = (
        f"at step {worst} it is worse than its start ({loss[worst]:.3f})" if worse else "never worse than its start"
    )
    lambada = "is lowest at the end" if best == last else f"is lowest at step {best}, {perplexity[best]:.0f}"
    return (
        f"- {rate}: of the loss that pruning cost, **{back:.0%}** is back after {last} steps; {damage}. LAMBADA's "
        f"perplexity {lambada}, and **{perplexity[last]:.0f}** after {last} steps."
    )


if __name__ == "__main__":
    main()
