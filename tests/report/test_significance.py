"""A difference is beyond chance by its interval and its seeds and, with several students, after Holm's correction."""

from dataclasses import replace

import pytest

from potstill.metrics.results import Paired, Result, Spread
from potstill.report.data import HELD_OUT_METRICS, Metric, Report
from potstill.report.significance import adjusted, adjusted_p, beyond_chance, judge, judge_of, key

LOSS = HELD_OUT_METRICS[0]


def pair(other: str, difference: float, half: float = 0.02, **more) -> Paired:
    return Paired("student", other, "loss", difference, difference - half, difference + half, 304, 0.01, **more)


def of_students(*p: float) -> Report:
    """Students with these p whose own intervals show that they are better than the control."""
    names = [f"student {place}" for place in range(len(p))]
    rows = tuple(Result(name, "loss", 4.0, 3.9, 4.1, 304) for name in names)
    pairs = tuple(
        replace(pair(other, -0.1), a=name, p=one)
        for name, one in zip(names, p, strict=True)
        for other in ("control", "start")
    )
    return Report("t", "r", "s", "v", "d", "h", "c", rows=rows, paired=pairs)


def test_the_interval_alone_decides_whatever_single_seeds_say():
    assert judge(pair("control", -0.1), LOSS) == "better"
    assert judge(pair("control", -0.1, seeds=Spread((-0.3, 0.1))), LOSS) == "better"
    assert judge(pair("control", -0.1, half=0.2, seeds=Spread((-0.2, -0.05))), LOSS) == "within chance"


def test_a_few_units_tell_nothing_whatever_their_interval_says():
    few = replace(pair("control", -0.1), n=9)
    assert judge(few, LOSS) == "too few to tell"
    report = replace(of_students(0.001, 0.3), paired=(replace(few, a="student 0"), replace(few, a="student 1", p=0.3)))
    assert [judge_of(report)(one, LOSS) for one in report.paired] == ["too few to tell"] * 2


def test_the_better_direction_belongs_to_the_metric():
    up, none = Metric("x", "X", "", "higher"), Metric("x", "X", "", None)
    assert judge(pair("control", 0.1), up) == "better"
    assert judge(pair("control", -0.1), up) == "worse"
    assert judge(pair("control", -0.1), none) == "different"


def test_what_is_beyond_chance_alone_may_be_within_it_among_many():
    alone, many = of_students(0.02), of_students(0.02, 0.3, 0.4)
    assert judge_of(alone)(alone.paired[0], LOSS) == "better"
    assert judge(many.paired[0], LOSS) == "better"
    assert judge_of(many)(many.paired[0], LOSS) == "within chance"
    clear = of_students(0.001, 0.3, 0.4)
    assert judge_of(clear)(clear.paired[0], LOSS) == "better"


def test_each_metric_and_each_kind_of_comparison_is_corrected_by_itself():
    report = of_students(0.01, 0.02)
    more = tuple(replace(pair, metric="agreement", p=0.9) for pair in report.paired)
    found = adjusted_p(replace(report, paired=(*report.paired, *more)))
    assert [found[key(pair)] for pair in report.paired] == [0.02] * 4


def test_metrics_of_one_family_are_corrected_together_for_a_single_student_too():
    names = [f"task{place}/acc" for place in range(4)]
    tasks = tuple(Metric(name, name, "", "higher", family="tasks") for name in names)
    pairs = [
        replace(pair("control", 0.1), metric=name, p=p) for name, p in zip(names, (0.005, 0.03, 0.4, 0.5), strict=True)
    ]
    loss = replace(pair("control", -0.1), p=0.03)
    report = replace(of_students(0.02), paired=(*pairs, loss), metrics=(LOSS, *tasks))
    told = judge_of(report)
    assert [told(each, metric) for each, metric in zip(pairs, tasks, strict=True)] == ["better", *["within chance"] * 3]
    assert told(loss, LOSS) == "better", "a metric of no family stands alone"
    assert adjusted_p(report)[key(pairs[1])] == pytest.approx(0.09)


def test_families_are_corrected_apart_for_each_model_that_is_compared_with():
    pairs = [
        replace(pair(other, 0.1), metric=name, p=0.04) for name in ("a/acc", "b/acc") for other in ("control", "x", "y")
    ]
    families = {"a/acc": "tasks", "b/acc": "tasks"}
    assert set(adjusted(pairs, families).values()) == {0.08}
    assert not any(beyond_chance(pairs, families, 0.95).values())
    assert all(beyond_chance(pairs, {}, 0.95).values())
