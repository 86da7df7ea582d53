"""Model card: a run's student told to somebody who has never seen the project, from `report/comparison.json` alone.

No figure is in it that the run did not measure. A run with one student has `export/README.md`; a run with several has
one for each, `export/NAME/README.md`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.console import duration, size
from potstill.export.licences import UNKNOWN, licence_of_student
from potstill.files.atomic import write_bytes, write_text
from potstill.metrics.results import Paired, Result
from potstill.metrics.speed import DECODE, Speed
from potstill.recipe.candidates import Candidate
from potstill.report import number_format
from potstill.report.data import CONTROL, START, TEACHER, Metric, kind
from potstill.report.tables import MARKS

CARD, CHART = "README.md", "chart.png"
REPOSITORY = "USER/NAME"
"""Stands for the name on the hub, until `potstill push` knows it."""
DISTILLED = "knowledge-distillation"
CardFacts = Mapping[str, Any]
"""The content of `report/comparison.json`."""


def write_cards(export: Path, facts: CardFacts, chart: bytes | None) -> list[Path]:
    """Write the card of each student, with its chart beside it."""
    written = []
    for student in facts["students"]:
        folder = card_folder(export, facts, student)
        folder.mkdir(parents=True, exist_ok=True)
        if chart is not None:
            write_bytes(folder / CHART, chart)
        write_text(folder / CARD, model_card(facts, student, has_chart=chart is not None))
        written.append(folder / CARD)
    return written


def card_folder(export: Path, facts: CardFacts, student: CardFacts) -> Path:
    """The folder of a student's card."""
    return export if len(facts["students"]) == 1 else export / str(student["name"])


def model_card(
    facts: CardFacts,
    student: CardFacts,
    repository: str = REPOSITORY,
    licence: str | None = None,
    *,
    has_chart: bool = True,
) -> str:
    """The card of one student: the hub's metadata, and the text.

    Args:
        facts: the content of `report/comparison.json`.
        student: one of its `students`.
        repository: the name on the hub.
        licence: the licence that the person gives who shares it; None: what its makers' licences leave.
        has_chart: whether the chart lies beside the card.
    """
    from huggingface_hub import ModelCard

    parts = (
        _beginning(facts, student),
        _verdict(facts, student, has_chart),
        _figures(facts, student),
        _size_and_speed(facts, student),
        _use(facts, student, repository),
        _made_from(facts, licence),
        _what_it_took(facts),
        _notes(facts),
        _recipe(facts),
    )
    text = "\n\n".join(line for part in parts for line in part)
    return str(ModelCard(f"---\n{_metadata(facts, student, repository, licence).to_yaml()}\n---\n\n{text}\n"))


def _metadata(facts: CardFacts, student: CardFacts, repository: str, licence: str | None) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    stated, metrics = facts["licences"], {one["name"]: one for one in facts["metrics"]}
    on_hub = {kind: [one["repository"] for one in stated if one["kind"] == kind] for kind in ("model", "dataset")}
    models, data = ([*dict.fromkeys(filter(None, on_hub[kind]))] for kind in ("model", "dataset"))
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="held-out",
            dataset_name=f"{row['n']:,} {facts['units']} of the run",
            metric_type=row["metric"],
            metric_name=metrics[row["metric"]]["label"],
            metric_value=row["value"],
        )
        for row in facts["rows"]
        # Figures of single turns and of the rows of single teachers are for the report.
        if row["model"] == student["label"] and row["metric"] in metrics
    ]
    found: dict[str, Any] = {"license": licence} if licence else dict(licence_of_student(stated))
    if models:
        found |= {"base_model": models, "base_model_relation": "adapter" if student["adapter"] else "finetune"}
    return ModelCardData(
        datasets=data or None,
        library_name="peft" if student["adapter"] else "transformers",
        pipeline_tag="text-generation",
        tags=[DISTILLED, "potstill", *(["conversational"] if student["chats"] else [])],
        model_name=repository.rpartition("/")[2] if repository != REPOSITORY else facts["run"],
        eval_results=results or None,
        **found,
    )


def _beginning(facts: CardFacts, student: CardFacts) -> Iterator[str]:
    yield f"# {_line(facts['title'])}"
    said = [
        f"A language model, distilled by potstill {facts['version']} on {facts['date']}:",
        f"{_line(facts['story'].rstrip('.'))}.",
        "The run measured every figure on this card itself.",
    ]
    if len(facts["students"]) > 1:
        name, count = number_format.inside(student["label"]), len(facts["students"])
        said.insert(2, f"It is {name} of the run’s {count} students.")
    yield " ".join(said)


def _verdict(facts: CardFacts, student: CardFacts, has_chart: bool) -> Iterator[str]:
    said = facts["verdict"]
    yield "## Did distillation help?"
    yield f"**{said['headline']}**"
    if said["figures"]:
        yield "\n".join(f"- **{one['text']}** {one['about']}" for one in said["figures"])
    yield " ".join(said["sentences"])
    if student["seeds"] > 1:
        yield (
            f"The figures are means of {student['seeds']} trainings with different seeds. These weights are those of "
            f"seed {student['seed']}."
        )
    yield from (f"> **Warning.** {warning}" for warning in facts["warnings"])
    if has_chart:
        main = next(Metric(**one) for one in facts["metrics"] if one["name"] == facts["main_metric"])
        yield f"![{main.label} of each model, with its interval]({CHART})"
        yield f"*{main.label} ({main.unit}) of each model, with its interval; {main.better} is better.*"


def _figures(facts: CardFacts, student: CardFacts) -> Iterator[str]:
    rows = {(row["model"], row["metric"]): Result.from_dict(row) for row in facts["rows"]}
    pairs = {
        (pair["b"], pair["metric"]): (Paired.from_dict(_without_judgement(pair)), pair["judgement"])
        for pair in facts["paired"]
        if pair["a"] == student["label"]
    }
    every = [Metric(**one) for one in facts["metrics"] if not one["baseline"]]
    metrics = [metric for metric in every if (student["label"], metric.name) in rows]
    if not metrics:
        return
    compared = [other for other in (CONTROL, START) if any(b == other for b, _ in pairs)]
    models = _compared_models([model for model, _ in rows], student["label"])
    yield "## Figures"
    yield (
        f"On {facts['units']} that this run trained no model on. In brackets: intervals of {facts['confidence']:.0%}. "
        + ("The control had the same start and the same samples, and no teacher. " if CONTROL in models else "")
        + "A difference is ✓ better, ✗ worse, ≠ different or ≈ within chance; ? is too few to tell."
    )
    head = ["Metric", *(number_format.label(model) for model in models)]
    head += [number_format.minus(other, student["label"]) for other in compared] + ["n"]
    lines = []
    for metric in metrics:
        cells = [rows.get((model, metric.name)) for model in models]
        differences = [pairs.get((other, metric.name)) for other in compared]
        lines.append(
            [
                f"{metric.label} ({metric.unit}){_direction(metric)}",
                *("" if row is None else number_format.interval(row, metric) for row in cells),
                *(_difference(pair, metric) for pair in differences),
                f"{rows[student['label'], metric.name].n:,}",
            ]
        )
    yield _table([head, *lines])
    yield "Nothing else was measured: not its safety, and not its quality on other texts or tasks."


def _without_judgement(pair: CardFacts) -> dict[str, Any]:
    return {name: value for name, value in pair.items() if name != "judgement"}


def _compared_models(models: Sequence[str], own: str) -> list[str]:
    """The student, the control, the start, the teachers and the baselines; other students have cards of their own."""
    order = {own: 0, CONTROL: 1, START: 2}
    there = [model for model in dict.fromkeys(models) if model == own or kind(model) != "student"]
    return sorted(there, key=lambda model: order.get(model, 3 if kind(model) == TEACHER else 4))


def _difference(pair: tuple[Paired, str] | None, metric: Metric) -> str:
    if pair is None:
        return ""
    difference, judgement = pair
    return f"{number_format.difference_interval(difference, metric)} {MARKS[judgement]}"


def _direction(metric: Metric) -> str:
    return {"lower": " ↓", "higher": " ↑", None: ""}[metric.better]


def _size_and_speed(facts: CardFacts, student: CardFacts) -> Iterator[str]:
    yield "## Size and speed"
    speed = None if facts["speed"] is None else Speed.from_dict(facts["speed"])
    if speed is None:
        sizes = [one for one in facts["models"] if one["role"] != "student" or len(facts["students"]) == 1]
        shown = [one for one in sizes if kind(one["role"]) != "student" or one["role"] == student["label"]]
        yield _table([["Model", "Parameters", "Layers"], *(_size_of(one) for one in shown)])
        yield f"The student’s files have {size(student['bytes'])}. The run did not measure its speed."
        return
    lines = []
    for one in speed.models:
        if kind(one.model) == "student" and one.model != student["label"]:
            continue
        ratio, rate = speed.ratio(one.model, DECODE), one.median(DECODE)
        lines.append(
            [
                number_format.label(one.model),
                number_format.count(one.parameters),
                "" if one.bytes is None else size(one.bytes),
                "" if rate is None else f"{rate:,.1f}",
                "" if ratio is None else f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
            ]
        )
    yield _table([["Model", "Parameters", "On disk", "Tokens written per second", "÷ the teacher’s"], *lines])
    yield (
        f"Median of {speed.rounds} round{'s' * (speed.rounds != 1)} in which the models took turns, on "
        f"{speed.device}; in brackets the slowest and the fastest round. {' '.join(speed.notes)}".rstrip()
    )


def _size_of(model: CardFacts) -> list[str]:
    parameters, layers = model["parameters"], model["layers"]
    return [
        str(model["name"]),
        "unknown" if parameters is None else number_format.count(parameters),
        "" if layers is None else str(layers),
    ]


def _use(facts: CardFacts, student: CardFacts, repository: str) -> Iterator[str]:
    yield "## Use it"
    if student["adapter"]:
        auto, imports = (
            "AutoPeftModelForCausalLM",
            "from peft import AutoPeftModelForCausalLM\nfrom transformers import ",
        )
    else:
        auto, imports = "AutoModelForCausalLM", "from transformers import AutoModelForCausalLM, "
    yield (
        f"```python\n{imports}AutoTokenizer\n"
        f'model = {auto}.from_pretrained("{repository}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repository}")\n```'
    )
    own = {student["label"], Candidate("student", student["name"]).label}
    exports = [one for one in facts["exports"] if one["experiment"] in own]
    gguf = [one for one in exports if one["format"].startswith("gguf:") and not one["refused"]]
    if ready := [one["format"].partition(":")[2] for one in gguf]:
        yield (
            f"In llama.cpp and Ollama, with the files {', '.join(ready)}:\n\n"
            f"```bash\nllama-cli -hf {repository}:{ready[0]}\nollama run hf.co/{repository}:{ready[0]}\n```"
        )
    if exports:
        yield "Each exported file was opened by the program that runs it, and compared with the student:"
        head = ("Format", "Size", "Engine", "Loss", "− the student’s", "KL to the student", "Same answers", "Tokens/s")
        yield _table([head, *map(_exported, exports)])
        yield from (f"- {one['format']}: {_line(note)}." for one in exports for note in one.get("notes", ()))


def _exported(one: CardFacts) -> list[str]:
    """A line of the table of exported files."""
    if one["refused"]:
        return [one["format"], "", "", f"refused: {_line(one['refused'])}", "", "", "", ""]
    nats = Metric("loss", "Loss", "nats per token", "lower")
    return [
        one["format"],
        size(one["bytes"]),
        one["engine"],
        number_format.interval(Result.from_dict(one["loss"]), nats),
        number_format.difference_interval(Paired.from_dict(one["loss_difference"]), nats),
        number_format.interval(Result.from_dict(one["kl"]), nats),
        f"{one['answers_equal']} of {one['answers']}",
        f"{one['decode_tokens_per_second']:,.1f}",
    ]


def _made_from(facts: CardFacts, licence: str | None) -> Iterator[str]:
    yield "## Made from, and licence"
    stated, own = facts["licences"], licence or licence_of_student(facts["licences"])["license"]
    if stated:
        lines = [[_line(one["of"]), _on_hub(one), _line(one["licence"]), _line(one["stated_in"])] for one in stated]
        yield _table([["What", "On the hub", "Licence", "Stated in"], *lines])
    for one in stated:
        for condition in one["conditions"]:
            yield f"> **Warning.** The licence of {_line(one['of'])} ({_line(one['licence'])}) {condition}."
    if licence is not None:
        yield f"Who shares this model gives it the licence `{licence}`."
    elif any(one["licence"] == UNKNOWN for one in stated):
        yield "> **Warning.** A licence above is unknown: check it before you use or share this model."
    elif not stated:
        yield "The run made its teacher and its data by itself, so that no other licence is inherited."
    else:
        yield f"The student inherits {'all of these conditions' if own == 'other' else f'the licence `{own}`'}."
    yield "This section is no legal advice."


def _on_hub(one: CardFacts) -> str:
    if not one["repository"]:
        return ""
    folder = "datasets/" if one["kind"] == "dataset" else ""
    return f"[{one['repository']}](https://huggingface.co/{folder}{one['repository']})"


def _what_it_took(facts: CardFacts) -> Iterator[str]:
    yield "## What it took"
    cost = facts["cost"]
    said = [f"{duration(cost['seconds'])} on {facts['host']}"]
    if cost["kwh"] is not None:
        said.append(f"{number_format.energy(cost['kwh'])} ({cost['kind']})")
    if cost["kg_co2e"] is not None:
        said.append(f"{number_format.carbon(cost['kg_co2e'])} of CO₂e")
    yield f"In all: {', '.join(said)}."
    captured = [stage for stage in facts["stages"] if stage["name"].partition("/")[0] == "capture"]
    for stage in captured:
        kept = "" if stage["bytes"] is None else f", {size(stage['bytes'])}"
        yield f"Captured of the teacher before the training: {_line(stage['made'])}{kept}."
    if not captured:
        yield "Nothing was captured: teachers ran beside the student."
    stages = dict[str, list[CardFacts]]()
    for stage in facts["stages"]:
        stages.setdefault(stage["name"].partition("/")[0], []).append(stage)
    yield _table([["Stage", "Made", "Time", "Energy", "Tokens", "On disk"], *map(_stage, stages.values())])


def _stage(steps: Sequence[CardFacts]) -> list[str]:
    """A line of the table of costs: a stage with all of its steps."""
    kwh = [step["cost"]["kwh"] for step in steps]
    tokens, made = ([step[name] for step in steps] for name in ("tokens", "bytes"))
    return [
        steps[0]["name"].partition("/")[0],
        _line(steps[0]["made"]) if len(steps) == 1 else f"{len(steps)} times; first: {_line(steps[0]['made'])}",
        duration(sum(step["cost"]["seconds"] for step in steps)),
        "" if None in kwh else number_format.energy(sum(kwh)),
        "" if None in tokens else f"{sum(tokens):,}",
        "" if None in made else size(sum(made)),
    ]


def _notes(facts: CardFacts) -> Iterator[str]:
    if facts["notes"]:
        yield "## How it was measured"
        yield "\n".join(f"- {_line(note)}" for note in facts["notes"])


def _recipe(facts: CardFacts) -> Iterator[str]:
    text = facts["recipe_text"].rstrip()
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    yield "## The recipe"
    summary = "<details><summary><code>potstill run</code> makes this model again from it</summary>"
    yield f"{summary}\n\n{fence}yaml\n{text}\n{fence}\n\n</details>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of Markdown, the first one as its head."""
    head, *others = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


def _line(text: str) -> str:
    """A text of the user on one line, in which no markup begins."""
    return re.sub(r"([\\`*_<>\[\]#])", r"\\\1", " ".join(str(text).split()))
