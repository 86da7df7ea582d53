"""The verdict at the top of the page: whether distillation helped, by how much, and how far away the teacher is.

It is computed from the paired differences alone. No effect and a loss are told as plainly as a gain.
"""

from potstill.metrics.results import Paired, Result
from potstill.report import number_format, verdict_of_several
from potstill.report.data import CONTROL, START, STUDENT, TEACHER, Metric, Report, students
from potstill.report.significance import UNDECIDED, Judgement, KeyFigure, Tone, Verdict, judge, judge_of


def verdict(report: Report) -> Verdict:
    """The verdict by the first metric that has a better direction and that the students have."""
    if len(students(report)) > 1:
        return verdict_of_several.verdict(report)
    rows = {(row.model, row.metric): row for row in report.rows}
    directed = [metric for metric in report.metrics if metric.better and (STUDENT, metric.name) in rows]
    if not directed:
        return Verdict("No verdict: the student was not evaluated.", "open", (), ())
    metric = directed[0]
    pairs = {pair.b: pair for pair in report.paired if pair.a == STUDENT and pair.metric == metric.name}
    against = {other: judge(pairs[other], metric) for other in (CONTROL, START) if other in pairs}
    headline, tone = _headline(against.get(CONTROL), against.get(START))
    if "too few to tell" in against.values():
        headline, tone = f"No verdict: {rows[STUDENT, metric.name].n} {report.units} are too few to tell.", "open"
    models = {model: row for (model, name), row in rows.items() if name == metric.name}
    sentences = (
        _against_control(metric, models, pairs, report),
        _against_start(metric, models, pairs),
        _against_teacher(metric, models),
        _other_metrics(report, metric),
        _seeds(metric, models[STUDENT], pairs.get(CONTROL), "questions" if report.asks else "text"),
    )
    return Verdict(headline, tone, _figures(metric, pairs), tuple(sentence for sentence in sentences if sentence))


def _headline(control: Judgement | None, start: Judgement | None) -> tuple[str, Tone]:
    if start == "worse":
        return "Distillation failed: the student is worse than before training.", "bad"
    if control == "worse":
        return "Distillation hurt: the same training without the teacher does better.", "bad"
    if control == "better" and start == "within chance":
        return "Better than the control, but no better than before training.", "open"
    if control == "better":
        return "Distillation helped.", "good"
    if control == "within chance" and start == "within chance":
        return "No gain: neither training nor the teacher made a difference beyond chance.", "open"
    if control == "within chance":
        trained = "Training helped; the teacher" if start == "better" else "The teacher"
        return f"{trained} made no difference beyond chance.", "open"
    if start == "better":
        return "Training helped; whether the teacher helped is unknown, because there is no control.", "open"
    if start == "within chance":
        return "No gain beyond chance, and no control to compare with.", "open"
    return "No verdict: there is nothing to compare the student with.", "open"


def _figures(metric: Metric, pairs: dict[str, Paired]) -> tuple[KeyFigure, ...]:
    """The difference from the control or, without one, from the start."""
    named = {CONTROL: "the control", START: "the student before training"}
    other = next((one for one in named if one in pairs), None)
    if other is None:
        return ()
    pair = pairs[other]
    about = (
        f"{number_format.metric_name(metric)} against {named[other]} {number_format.difference_bounds(pair, metric)}"
    )
    return (KeyFigure(number_format.difference(pair, metric).replace(" points", " pp"), about),)


def _against_control(metric: Metric, models: dict[str, Result], pairs: dict[str, Paired], report: Report) -> str:
    student, learned = models[STUDENT], "answers" if report.asks else "tokens"
    name, value = number_format.metric_name(metric), number_format.interval(student, metric)
    own = f"On {student.n:,} {report.units} the student’s {name} is {value}"
    if CONTROL not in pairs:
        return f"{own}. No control was trained on the same {learned} without the teacher."
    other = f", has {number_format.interval(models[CONTROL], metric)}" if CONTROL in models else ""
    return (
        f"{own}. The control, trained on the same {learned} without the teacher{other}: "
        f"{_difference(pairs[CONTROL], metric)}."
    )


def _against_start(metric: Metric, models: dict[str, Result], pairs: dict[str, Paired]) -> str:
    if START not in pairs or START not in models:
        return "The student before training was not measured."
    return (
        f"Before training it was {number_format.interval(models[START], metric)}: {_difference(pairs[START], metric)}."
    )


def _against_teacher(metric: Metric, models: dict[str, Result]) -> str:
    if TEACHER not in models:
        return ""
    teacher, student = models[TEACHER], models[STUDENT]
    ahead = (teacher.value < student.value) == (metric.better == "lower")
    if not ahead or teacher.value == student.value:
        return f"The teacher, at {number_format.interval(teacher, metric)}, is not ahead of the student."
    still = f"The teacher is still ahead at {number_format.interval(teacher, metric)}"
    closed = _closed(models, STUDENT)
    if closed is None:
        return f"{still}."
    if closed < 0:
        return f"{still}, further away than before training."
    control = _closed(models, CONTROL) if CONTROL in models else None
    beside = f", the control {control:.0%}" if control is not None and control >= 0 else ""
    return f"{still}: training closed {closed:.0%} of the gap to it{beside}."


def _closed(models: dict[str, Result], model: str) -> float | None:
    """The share of the gap between start and teacher that a model has closed; None if there is no gap."""
    if not {START, TEACHER} <= models.keys() or models[START].value == models[TEACHER].value:
        return None
    way = models[START].value - models[TEACHER].value
    return (models[START].value - models[model].value) / way


def _other_metrics(report: Report, chosen: Metric) -> str:
    told = judge_of(report)
    groups: dict[Judgement, list[str]] = {"better": [], "worse": [], "different": [], "within chance": []}
    groups["too few to tell"] = []
    for metric in report.metrics:
        for pair in report.paired:
            if (pair.a, pair.b, pair.metric) == (STUDENT, CONTROL, metric.name) and metric is not chosen:
                groups[told(pair, metric)].append(
                    f"{number_format.metric_name(metric)} ({number_format.difference(pair, metric)})"
                )
    said = [f"{judgement} in {number_format.listed(names)}" for judgement, names in groups.items() if names]
    return f"Otherwise, against the control: {'; '.join(said)}." if said else ""


def _seeds(metric: Metric, student: Result, control: Paired | None, unit: str) -> str:
    if student.seeds is None:
        return f"One seed was trained: the intervals show chance in the {unit}, not in the training."
    means = f"Means of {student.seeds.n} seeds; the intervals cover chance in the {unit} and in the training"
    if control is None or control.seeds is None:
        return f"{means}."
    low, high = (number_format.signed(bound, control, metric) for bound in (control.seeds.low, control.seeds.high))
    return f"{means}. Single seeds differ from their controls by {low} to {high}."


def _difference(pair: Paired, metric: Metric) -> str:
    judgement = judge(pair, metric)
    told = judgement if judgement in UNDECIDED else f"{judgement}, beyond chance"
    return f"a difference of {number_format.difference_interval(pair, metric)}, {told}"
