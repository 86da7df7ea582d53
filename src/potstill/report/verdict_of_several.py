"""The verdict on several students: how many beat the control, and which of these gains come from the teacher.

The verdict lists all students in the order of the recipe and in the same words. Judgements are corrected for their
number. A *placebo* is a student whose teacher speaks about another question. If a student gains over the control but
not over its placebo, the gain does not come from the teacher's knowledge.
"""

from dataclasses import dataclass

from potstill.metrics.results import Paired, Result
from potstill.recipe.candidates import Candidate
from potstill.report import number_format
from potstill.report.data import CONTROL, START, TEACHER, Metric, Report, kind, students
from potstill.report.significance import UNDECIDED, Judgement, KeyFigure, Tone, Verdict, adjusted_p, judge_of, key

MOST_FIGURES = 6
"""The maximum number of students whose differences are printed large; the table below has all of them."""
BEATS = {CONTROL: ("beats the control", "beat the control"), START: ("is better than before training",) * 2}


@dataclass(frozen=True)
class _Case:
    """Everything about one metric that the verdict needs."""

    report: Report
    metric: Metric
    students: list[str]
    rows: dict[str, Result]
    pairs: dict[tuple[str, str], Paired]
    judged: dict[tuple[str, str], Judgement]
    p: dict[str, float]

    @property
    def other(self) -> str | None:
        """The model that the headline compares with: the control or, without one, the start."""
        return next((other for other in (CONTROL, START) if any(b == other for _, b in self.pairs)), None)

    @property
    def real(self) -> list[str]:
        """The students that are no placebos."""
        return [student for student in self.students if student not in self.report.placebos] or self.students

    def those(self, other: str, judgement: Judgement) -> list[str]:
        """The students, without placebos, that have a judgement in comparison with another model."""
        return [student for student in self.real if self.judged.get((student, other)) == judgement]

    def placebos(self, student: str) -> list[str]:
        """The placebos of a student."""
        return [b for a, b in self.pairs if a == student and b in self.report.placebos]


def verdict(report: Report) -> Verdict:
    """The verdict by the first metric that has a better direction and that all students have."""
    who = students(report)
    taken = {(row.model, row.metric): row for row in report.rows}
    directed = [metric for metric in report.metrics if metric.better and all((s, metric.name) in taken for s in who)]
    if not directed:
        return Verdict("No verdict: the students were not evaluated.", "open", (), ())
    metric = directed[0]
    judge, pairs = judge_of(report), [pair for pair in report.paired if pair.metric == metric.name]
    case = _Case(
        report,
        metric,
        who,
        {model: row for (model, name), row in taken.items() if name == metric.name},
        {(pair.a, pair.b): pair for pair in pairs},
        {(pair.a, pair.b): judge(pair, metric) for pair in pairs},
        adjusted_p(report),
    )
    headline, tone = _headline(case)
    sentences = (_company(case), *(_student(case, student) for student in who), _teachers(case), _how(case))
    return Verdict(headline, tone, _figures(case), tuple(sentence for sentence in sentences if sentence))


def _headline(case: _Case) -> tuple[str, Tone]:
    other, real = case.other, case.real
    if other is None:
        return "No verdict: there is nothing to compare the students with.", "open"
    if case.those(other, "too few to tell"):
        few = case.rows[case.students[0]].n
        return f"No verdict: {few} {case.report.units} are too few to tell.", "open"
    better, worse = case.those(other, "better"), case.those(other, "worse")
    beyond = "" if worse else " beyond chance"
    said = [f"{_share(better, real)} {BEATS[other][len(better) > 1]}: {_names(better)}."] if better else []
    said = said or [f"No experiment {BEATS[other][0]}{beyond}."]
    if worse:
        said.append(f"{len(worse)} {'does' if len(worse) == 1 else 'do'} worse: {_names(worse)}.")
    if other == START:
        said.append("Whether the teacher helped is unknown, because there is no control.")
    doubts = []
    if other == CONTROL:
        below = case.those(START, "worse")
        level = [student for student in better if case.judged.get((student, START)) == "within chance"]
        doubts += [f"Worse than before training: {_names(below)}."] if below else []
        doubts += [f"No better than before training: {_names(level)}."] if level else []
    alike = [student for student in better if _is_no_better(case, student)]
    doubts += [f"No better than its placebo: {_names(alike)}."] if alike else []
    if (worse and not better) or len(case.those(START, "worse")) == len(real):
        tone: Tone = "bad"
    else:
        tone = "good" if better and not worse and not doubts and other == CONTROL else "open"
    return " ".join([*said, *doubts]), tone


def _is_no_better(case: _Case, student: str) -> bool:
    return any(case.judged[student, placebo] != "better" for placebo in case.placebos(student))


def _share(some: list[str], of: list[str]) -> str:
    if len(of) == 1:
        return "The experiment"
    if len(some) < len(of):
        return f"{len(some)} of {len(of)} experiments"
    return "Both experiments" if len(of) == 2 else f"All {len(of)} experiments"


def _figures(case: _Case) -> tuple[KeyFigure, ...]:
    if case.other is None or len(case.students) > MOST_FIGURES:
        return ()
    against = "the control" if case.other == CONTROL else "before training"
    name = number_format.metric_name(case.metric)
    return tuple(
        KeyFigure(_short(case.pairs[student, case.other], case.metric), f"{name}, {_name(student)} against {against}")
        for student in case.students
        if (student, case.other) in case.pairs
    )


def _short(pair: Paired, metric: Metric) -> str:
    return number_format.difference(pair, metric).replace(" points", " pp")


def _company(case: _Case) -> str:
    """The figures that students are compared with: the start and the control."""
    n, rows, metric = case.rows[case.students[0]].n, case.rows, case.metric
    learned = "answers" if case.report.asks else "tokens"
    said = [f"before training {number_format.interval(rows[START], metric)}"] if START in rows else []
    if CONTROL in rows:
        control = number_format.interval(rows[CONTROL], metric)
        said.append(f"the control, trained on the same {learned} without the teacher, {control}")
    else:
        said.append(f"no control was trained on the same {learned} without the teacher")
    return f"{metric.label} on {n:,} {case.report.units}: {'; '.join(said)}."


def _student(case: _Case, student: str) -> str:
    placebo = " (a placebo: its teacher spoke about other questions)" if student in case.report.placebos else ""
    said = [f"{number_format.label(student)}{placebo}: {number_format.interval(case.rows[student], case.metric)}"]
    others = {CONTROL: "the control", START: "the student before training"}
    others |= {name: f"its placebo {_name(name)}" for name in case.placebos(student)}
    said += [f"against {name} {_told(case, student, b)}" for b, name in others.items() if (student, b) in case.pairs]
    return f"{'; '.join(said)}.{_whose(case, student)}"


def _whose(case: _Case, student: str) -> str:
    """Whether a gain comes from the teacher's knowledge, if a placebo can tell."""
    if not case.placebos(student) or case.judged.get((student, CONTROL)) != "better":
        return ""
    if _is_no_better(case, student):
        return " It does not gain over its placebo beyond chance: the gain does not come from the teacher’s knowledge."
    return " It gains over its placebo too: the gain needs a teacher that speaks about the same questions."


def _told(case: _Case, a: str, b: str) -> str:
    pair, judgement = case.pairs[a, b], case.judged[a, b]
    corrected = " after the correction for all students" if pair.beyond_chance else ""
    said = judgement + corrected if judgement in UNDECIDED else f"{judgement}, beyond chance"
    chance = number_format.probability(case.p[key(pair)])
    return f"{number_format.difference_interval(pair, case.metric)}, {said} ({chance})"


def _teachers(case: _Case) -> str:
    said = []
    for teacher in (row for model, row in case.rows.items() if kind(model) == TEACHER):
        behind = [
            student
            for student in case.students
            if case.rows[student].value != teacher.value
            and (teacher.value < case.rows[student].value) == (case.metric.better == "lower")
        ]
        whom = "all of them" if len(behind) == len(case.students) else _names(behind) if behind else "none of them"
        at = number_format.interval(teacher, case.metric)
        said.append(f"The {number_format.inside(teacher.model)}, at {at}, is ahead of {whom}.")
    return " ".join(said)


def _how(case: _Case) -> str:
    seeds = case.rows[case.students[0]].seeds
    how = f"Every p is corrected (Holm) for all {len(case.students)} students."
    unit = "questions" if case.report.asks else "text"
    if seeds is None:
        return f"{how} Each was trained with one seed: the intervals show chance in the {unit}, not in the training."
    return f"{how} Means of {seeds.n} seeds; the intervals cover chance in the {unit} and in the training."


def _name(student: str) -> str:
    return Candidate.from_label(student).name or student


def _names(some: list[str]) -> str:
    return ", ".join(map(_name, some))
