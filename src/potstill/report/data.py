"""The data of a report. It is plain, so that the page can be drawn without a model, a recipe or a run folder."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from potstill.cost import Cost, Expense
from potstill.metrics.conversations.turns import BY_TURN, TURNS
from potstill.metrics.results import Paired, Result
from potstill.metrics.speed import Speed
from potstill.metrics.taught_parts import BY_PART
from potstill.recipe.candidates import Candidate
from potstill.report.reuse import Reuse

TEACHER, START, STUDENT, CONTROL = "teacher", "start", "student", "control"
"""The four models of every experiment, as `Result.model`, `Paired.a` and `Paired.b` name them. ``start`` is the student
before training. If there are several teachers or students, each has its own name after the role: ``student base``. Any
other name is another model, which is shown beside them."""

NO_TERM = {"loss", "learning_rate", "grad_norm", "epoch", "step", "num_input_tokens_seen"}
"""The figures of a training's log that are not loss terms. Those of the duration begin with `train_`."""
ON_POLICY = "on_policy/"
"""The beginning of the names of a log's figures about answers that the student wrote."""

LABELS = {TEACHER: "Teacher", START: "Student before", STUDENT: "Student", CONTROL: "Control"}


@dataclass(frozen=True)
class Metric:
    """How a metric is shown. ``better`` is None if neither direction is better; ``percent`` shows 0.53 as 53%."""

    name: str
    label: str
    unit: str
    better: Literal["lower", "higher"] | None
    percent: bool = False
    baseline: bool = False
    """Whether it only serves as the baseline of another metric: it is in the tables, and is not drawn."""
    family: str = ""
    """The family of metrics whose differences are corrected together; "": the metric is judged alone."""


HELD_OUT_METRICS = (
    Metric("loss", "Loss", "nats per token", "lower"),
    Metric("kl_to_teacher", "KL to the teacher", "nats per token", "lower"),
    Metric("agreement", "Agreement", "same likeliest token as the teacher", "higher", percent=True),
    Metric("bits_per_byte", "Bits per byte", "comparable across tokenizers", "lower"),
    Metric("perplexity", "Perplexity", "exp of the loss", "lower"),
)

REFERENCE_LOSS = Metric("loss", "Loss", "nats per token of the reference solutions", "lower")

ANSWER_METRICS = (
    Metric("accuracy", "Accuracy", "right answers", "higher", percent=True),
    REFERENCE_LOSS,
    Metric("hit_limit", "Cut at the limit", "answers that were not finished", None, percent=True),
    Metric("no_number", "No number", "answers in which no number was found", "lower", percent=True),
)
"""The metrics of answers to questions. A cut answer may be right, so that `hit_limit` has no better direction."""


CHAT_METRICS = tuple(
    replace(metric, unit="nats per token of the assistant") if metric.unit == "nats per token" else metric
    for metric in HELD_OUT_METRICS
    if metric.name != "bits_per_byte"
)
"""The metrics of the turns of the assistant in held-out conversations."""

TURN_METRICS = tuple(
    replace(metric, name=f"{metric.name}/{turns}", label=f"{metric.label}, {turns}")
    for metric in CHAT_METRICS
    if metric.name in BY_TURN
    for turns in TURNS
)

WRITTEN_METRICS = (
    Metric("stopped", "Stopped by itself", "answers that ended within the limit", "higher", percent=True),
    Metric("length_ratio", "Length", "tokens of the answers over those of the references", None),
    Metric("rouge_l", "ROUGE-L", "F1 of the words shared with the reference", "higher"),
    Metric("rouge_l_random", "ROUGE-L, random pairs", "against other references", None, baseline=True),
    Metric("sentence_cosine", "Sentences", "cosine of the embeddings of answer and reference", "higher"),
    Metric(
        "sentence_cosine_random",
        "Sentences, random pairs",
        "compared with other prompts’ references",
        None,
        False,
        True,
    ),
    Metric("repetition", "Repetition", "share of 4-grams of tokens that repeat earlier ones", "lower", percent=True),
    Metric("valid_tool_calls", "Valid tool calls", "answers where the reference calls a tool", "higher", percent=True),
)
"""The metrics of answers that are judged by a reference without a number."""


def prompt_metrics(name: str) -> tuple[Metric, ...]:
    """The metrics of a set of prompts that models continued, each followed by its value on random pairs."""
    above = (
        Metric(f"{name}/em", f"{name}: keyword", "responses with the keyword (EM)", "higher", percent=True),
        Metric(f"{name}/rouge_l_precision", f"{name}: ROUGE-L precision", "share of the response", "higher"),
        Metric(f"{name}/rouge_l_recall", f"{name}: ROUGE-L recall", "share of the reference", "higher"),
        Metric(f"{name}/rouge_l_f", f"{name}: ROUGE-L F1", "of precision and recall", "higher"),
        Metric(f"{name}/word_cosine", f"{name}: words", "cosine of averaged word vectors", "higher"),
        Metric(f"{name}/sentence_cosine", f"{name}: sentences", "cosine of sentence embeddings", "higher"),
    )
    random = "compared with other prompts’ references"
    return tuple(
        one
        for metric in above
        for one in (
            metric,
            Metric(f"{metric.name}_random", f"{metric.label}, random pairs", random, None, metric.percent, True),
        )
    )


def pair_metric(name: str) -> Metric:
    """The metric of a set of minimal pairs."""
    return Metric(name, name, "minimal pairs, mean over subtasks", "higher", percent=True)


@dataclass(frozen=True)
class Model:
    """One line of the table of models. ``name`` is free; ``role`` is its name in the rows, or empty.

    ``about`` says how it was trained. ``adapter`` is the number of parameters of an adapter, for a student that is one;
    ``bytes`` is then the size of the adapter alone.
    """

    name: str
    parameters: int | None
    """None for a model behind a server."""
    layers: int | None = None
    hidden: int | None = None
    bytes: int | None = None
    role: str = ""
    about: str = ""
    adapter: int | None = None


@dataclass(frozen=True)
class Curve:
    """The log of one training. Each point has ``step`` and ``loss`` and, if they were logged, ``tokens``,
    ``learning_rate`` and each loss term by its own name (``forward_kl``, ``cross_entropy``, ...)."""

    model: str
    seed: int
    points: tuple[dict[str, float], ...]

    @classmethod
    def from_log(cls, model: str, seed: int, logged: Iterable[Mapping[str, float]]) -> Self:
        """A curve from the lines of a training's `log.jsonl`."""
        return cls(model, seed, tuple(map(_point, logged)))

    @classmethod
    def of_written(cls, model: str, seed: int, logged: Iterable[Mapping[str, float]]) -> Self:
        """The figures of written answers alone, by their names without `on_policy/`, from the steps that have some."""
        written = [
            {"step": line["step"]}
            | {name.removeprefix(ON_POLICY): value for name, value in line.items() if name.startswith(ON_POLICY)}
            for line in logged
        ]
        return cls(model, seed, tuple(point for point in written if len(point) > 1))


@dataclass(frozen=True)
class SnapshotPoint:
    """The score of one snapshot by one metric on one split. ``step`` is 0 for the start and None for a model that the
    run does not train; ``seed`` is None for both. ``chosen``: this snapshot became the student or the control."""

    model: str
    seed: int | None
    step: int | None
    metric: str
    split: Literal["selection", "reporting"]
    value: float
    low: float
    high: float
    chosen: bool = False


@dataclass(frozen=True)
class Token:
    """A token of a held-out passage, and the predictions of both models for it. Where the models have different
    tokenizers, it is a span of text that both were compared on, or text between two spans.

    ``kl`` is KL(teacher ‖ student) in nats at this place; None for the first token, which is not predicted, and for
    spans. ``excess`` is by how many nats a span surprises the student more than the teacher; None for tokens, and for
    text that is not compared. ``teacher_top5`` and ``student_top5`` are (token, probability), the likeliest first.
    """

    text: str
    kl: float | None = None
    student_nll: float | None = None
    teacher_nll: float | None = None
    teacher_top5: tuple[tuple[str, float], ...] = ()
    student_top5: tuple[tuple[str, float], ...] = ()
    excess: float | None = None

    @property
    def apart(self) -> float | None:
        """How far both models are apart, in nats."""
        return self.kl if self.excess is None else self.excess

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A token from `passages.json`."""
        teacher, student = (
            tuple((text, p) for text, p in data.get(name, ())) for name in ("teacher_top5", "student_top5")
        )
        kl, of_student, of_teacher = (data.get(name) for name in ("kl", "student_nll", "teacher_nll"))
        return cls(data["text"], kl, of_student, of_teacher, teacher, student, data.get("excess"))


@dataclass(frozen=True)
class Passage:
    """A held-out passage with its title."""

    title: str
    tokens: tuple[Token, ...]

    @property
    def of_spans(self) -> bool:
        """Whether it shows spans of text, and not tokens."""
        return any(token.excess is not None for token in self.tokens)


@dataclass(frozen=True)
class Foreseen:
    """What a step was forecast to need: each number as its least, its expected and its greatest value. None: it could
    not be told."""

    seconds: tuple[float, float, float] | None
    host: tuple[float, float, float] | None
    """Bytes of the host's memory."""
    device: tuple[float, float, float] | None
    """Bytes of the accelerator's memory."""
    disk: tuple[float, float, float] | None
    """Bytes."""
    peak_host: int | None
    """Bytes that the step really had at most; None if that was not measured."""
    peak_device: int | None
    kwh: tuple[float, float, float] | None
    """Kilowatt-hours of the whole machine."""

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self | None:
        """The forecast of a finished step; None if none was made."""
        told, peak = manifest["forecast"], manifest["peak_memory"] or {}
        if told is None:
            return None
        names = ("seconds", "host_bytes", "device_bytes", "disk_bytes", "kwh")
        seconds, host, device, disk, kwh = (None if told[name] is None else tuple(told[name]) for name in names)
        return cls(seconds, host, device, disk, peak.get("host"), peak.get("device"), kwh)


@dataclass(frozen=True)
class ShownAnswer:
    """What was written to a prompt. ``model`` is None for the reference. ``cut``: the limit ended it."""

    model: str | None
    text: str
    cut: bool = False


@dataclass(frozen=True)
class ShownPrompt:
    """A held-out prompt and the answers to it. ``turns`` are roles and texts, the last one that of the prompt's end."""

    title: str
    turns: tuple[tuple[str, str], ...]
    answers: tuple[ShownAnswer, ...]


@dataclass(frozen=True)
class ShownRollout:
    """An answer that a student wrote while it was trained."""

    step: int
    """The optimizer step in which it was learned from."""
    written_at: int
    """The optimizer step whose weights wrote it."""
    prompt: str
    tokens: tuple[tuple[str, float | None], ...]
    """The text of each token, and KL(student ‖ teacher) in nats at its place, where that is known."""
    stopped: bool
    """Whether it ended by itself; otherwise the limit cut it."""


@dataclass(frozen=True)
class ReportedRollouts:
    """What a student wrote while it was trained on its own answers."""

    curve: Curve
    """Each point has `step` and the log's figures of written answers: `length`, `stopped`, `entropy`, ..."""
    rollouts: tuple[tuple[int, tuple[float, ...]], ...]
    """Of each kept sample its step, and KL(student ‖ teacher) in nats at each written token."""
    early: tuple[ShownRollout, ...]
    """The first answers."""
    late: tuple[ShownRollout, ...]
    """The last answers."""
    preflight: str = ""
    """What was said before the training; empty if nothing was measured."""


@dataclass(frozen=True)
class StageCost:
    """What one step of a stage made, in words, and its cost. ``attempts`` above 1: it was stopped and resumed."""

    name: str
    made: str
    cost: Cost
    bytes: int | None = None
    tokens: int | None = None
    attempts: int = 1
    foreseen: "Foreseen | None" = None

    @property
    def kwh_per_1000(self) -> float | None:
        """Energy per 1,000 tokens, if both are known."""
        return 1000 * self.cost.kwh / self.tokens if self.cost.kwh is not None and self.tokens else None


@dataclass(frozen=True)
class Report:
    """Everything on the page. A section without data is left out; a missing control is always said (law 7)."""

    title: str
    recipe: str
    story: str
    version: str
    date: str
    host: str
    command: str
    rows: tuple[Result, ...]
    paired: tuple[Paired, ...]
    models: tuple[Model, ...] = ()
    stages: tuple[StageCost, ...] = ()
    expenses: tuple[Expense, ...] = ()
    """The cost of each measurement of each model."""
    curves: tuple[Curve, ...] = ()
    snapshots: tuple[SnapshotPoint, ...] = ()
    on_policy: tuple[ReportedRollouts, ...] = ()
    """The trainings in which students wrote, of the first seed."""
    passages: tuple[Passage, ...] = ()
    prompts: tuple[ShownPrompt, ...] = ()
    """Held-out prompts with the answers of teacher, students and control."""
    notes: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = HELD_OUT_METRICS
    turns: tuple[Metric, ...] = ()
    """The metrics of single turns of conversations. They have a table of their own."""
    parts: tuple[Metric, ...] = ()
    """The metrics of the held-out items of each teacher, where teachers teach some rows only; also with a table."""
    units: str = "held-out passages"
    confidence: float = 0.95
    asks: bool = False
    """Whether models were asked questions and learned from answers; else they read a text."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before any figure, a sentence each."""
    speed: Speed | None = None
    """The size and speed of teachers, students and control, if they were measured."""
    exports: tuple[Mapping[str, Any], ...] = ()
    """The figures of exported files (``export.entries``)."""
    placebos: tuple[str, ...] = ()
    """The students whose teacher spoke about another question."""
    reuse: Reuse | None = None


def part_metrics(metrics: Iterable[Metric], parts: Iterable[str]) -> tuple[Metric, ...]:
    """The metrics of each part of the held-out items, which is named by its teachers."""
    parts = list(parts)
    return tuple(
        replace(metric, name=f"{metric.name}/{part}", label=f"{metric.label}, {part}")
        for metric in metrics
        if metric.name in BY_PART
        for part in parts
    )


def kind(model: str) -> str:
    """The role of the run's own models, without the name that they may have; a baseline by its own name."""
    candidate = Candidate.from_label(model)
    return candidate.label if candidate.role == "baseline" else candidate.role


def students(report: Report) -> list[str]:
    """The students that were measured, in the order of the rows."""
    return list(dict.fromkeys(row.model for row in report.rows if kind(row.model) == STUDENT))


def _point(logged: Mapping[str, float]) -> dict[str, float]:
    others = ("train_", ON_POLICY)
    terms = {name: value for name, value in logged.items() if name not in NO_TERM and not name.startswith(others)}
    shared = {name: logged[name] for name in ("step", "loss", "learning_rate") if name in logged}
    return shared | terms | {"tokens": logged.get("num_input_tokens_seen", 0)}
