"""Baby Llama at a size that two cores can train: the paper's claims, and ablations.

`make experiment-babyllama` runs it and writes docs/experiments/babyllama.md; a second call runs only what is missing.
The ablations are smaller. They are compared with a run of their own size, and share its teachers.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from experiments.measured import differences as paired_differences
from experiments.measured import interval, measured, models, outcome
from experiments.pages import write_page
from experiments.seeds import differences, table, with_spread
from experiments.sharing import beside
from potstill.metrics.results import Paired, Result
from potstill.pipeline.run_folder import Run
from potstill.pipeline.runner import run_recipe
from potstill.recipe import Recipe, load_recipe

RUNS = Path("runs/experiments/babyllama")
PAGE = Path("docs/experiments/babyllama.md")
METRICS = ("loss", "bits_per_byte", "blimp")
SMALLER = [
    "corpus.train_tokens=396_875",
    "pretrain.gpt2.training.num_train_epochs=3",
    "pretrain.llama.training.num_train_epochs=3",
    "pretrain.gpt2.training.save_steps=50",
    "pretrain.llama.training.save_steps=50",
    "distil.training.save_steps=50",
    "evaluate.minimal_pairs.blimp.pairs=100",
    "evaluate.documents=256",
    "control=null",  # variants are compared with one another, and a control would not depend on what they vary
]
OWN = ("distil", "evaluate", "report")
"""The stages that each ablation runs itself."""
BASE = "as in the recipe"
ABLATIONS: dict[str, list[str]] = {
    BASE: [],
    "α = 0.25": ["distil.losses.0.weight=0.25", "distil.losses.1.weight=0.75"],
    "α = 0.75": ["distil.losses.0.weight=0.75", "distil.losses.1.weight=0.25"],
    "T = 1": ["distil.losses.1.temperature=1.0"],
    "T = 4": ["distil.losses.1.temperature=4.0"],
    "the GPT-2 teacher alone": ["only gpt2"],
    "the LLaMA teacher alone": ["only llama"],
    "probabilities averaged, not logits": ["distil.mix=probabilities"],
    "KL summed over positions, as published": ["distil.reduction=sequence"],
    "no random offset": ["corpus.random_offset=false"],
}
"""The overrides of each ablation; `only NAME` leaves the other teacher out."""

ABOUT_ABLATIONS = """\
At 400,000 training tokens, 256 held-out sequences and 100 pairs a subtask, three seeds each, the same teachers unless
named; without the random offset they are trained anew. α is the share of cross-entropy."""


def main() -> None:
    """Run everything and write the page."""
    whole = Run(RUNS / "mini")
    run_recipe(load_recipe("babyllama-mini"), whole)
    base = Run(RUNS / "ablations" / "0")
    found: dict[str, dict[str, list[float]]] = {}
    for number, (name, overrides) in enumerate(ABLATIONS.items()):
        run = base if name == BASE else beside(base, RUNS / "ablations" / str(number), OWN)
        run_recipe(_recipe(overrides), run)
        found[name] = _students(run)
    rows, pairs = measured(whole)
    write_page(PAGE, page(rows, pairs, found))


def _recipe(overrides: Sequence[str]) -> Recipe:
    given = [*SMALLER, *(each for each in overrides if not each.startswith("only "))]
    recipe = load_recipe("babyllama-mini", given)
    for name in (each.removeprefix("only ") for each in overrides if each.startswith("only ")):
        alone = {name: recipe.pretrain[name].model_dump(mode="json")}
        recipe = load_recipe("babyllama-mini", [*given, f"pretrain={json.dumps(alone)}"])
    return recipe


def _students(run: Run) -> dict[str, list[float]]:
    rows, _ = measured(run)
    students = {row.metric: row for row in rows if row.model == "student"}
    return {metric: list(students[metric].seeds.values) for metric in METRICS if students[metric].seeds}


def page(rows: Sequence[Result], pairs: Sequence[Paired], ablations: dict[str, dict[str, list[float]]]) -> str:
    """The page, from the measurements of the whole run and of each ablation's students."""
    head = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    lines = ["## The claims", "", *_of_the_paper(pairs), "", *(_claim(pair) for pair in pairs if _is_claim(pair)), ""]
    lines += ["## What was measured", "", *models(rows, METRICS), ""]
    lines += ["On the same text:", "", *paired_differences(pairs, METRICS), ""]
    lines += ["## Ablations", "", ABOUT_ABLATIONS, ""]
    cells = [(name, *(with_spread(row[metric]) for metric in METRICS)) for name, row in ablations.items()]
    lines += table(("variant", *(f"{metric}, mean ± sd" for metric in METRICS)), cells)
    lines += ["", f"Difference from “{BASE}”, seed by seed:", "", *differences(ablations, BASE, METRICS)]
    return head + "\n".join(lines) + "\n"


def _of_the_paper(pairs: Sequence[Paired]) -> list[str]:
    """The paper's two claims: the student beats the control, and is at least as good as every teacher."""
    lines = []
    for metric in ("loss", "blimp"):
        told = {pair.b: outcome(pair) for pair in pairs if pair.metric == metric}
        ahead = [other for other, said in told.items() if other.startswith("teacher") and said == "worse"]
        control = "holds" if told["control"] == "better" else "is not shown"
        teachers = (
            f"does not hold: {' and '.join(ahead)} ahead" if ahead else "is not refuted: none is ahead beyond chance"
        )
        lines.append(
            f"- By {metric}, “student > control” **{control}** at this size; “student ≥ its teachers” **{teachers}**."
        )
    return lines


def _is_claim(pair: Paired) -> bool:
    return pair.metric in ("loss", "blimp") and pair.b != "start"


def _claim(pair: Paired) -> str:
    difference = interval(pair.difference, pair.low, pair.high)
    return f"- Student against {pair.b}, {pair.metric}: **{outcome(pair)}** ({difference})."


if __name__ == "__main__":
    main()
