"""Scores of each part of the items: those of the part's items alone."""

import numpy as np

from potstill.metrics.held_out_text import DocumentScores, TaughtScores
from potstill.metrics.taught_parts import PartScores, TaughtParts

SETS = [("a",), ("a",), (), ("b",), (), ("a", "b")]
METRICS = ("loss", "kl_to_teacher", "bits_per_byte")


def scores():
    values = np.arange(1.0, 7.0)
    return DocumentScores(values, values / 10, values / 100, 10 * values, 4 * values)


def test_a_part_has_the_sums_of_its_items():
    parts = TaughtParts(SETS, ["a", "b", "c"])
    taught = TaughtScores(scores(), np.array([bool(one) for one in SETS]))
    found = PartScores(taught, parts)
    expected = {"loss": range(6), "kl_to_teacher": (0, 1, 3, 5), "loss/a": (0, 1, 5), "loss/b": (3, 5)}
    for metric, places in expected.items():
        whole, own = scores().sums(metric.partition("/")[0]), found.sums(metric)
        np.testing.assert_array_equal(own.numerator, np.asarray(whole.numerator)[list(places)])
        np.testing.assert_array_equal(own.denominator, np.asarray(whole.denominator)[list(places)])
    np.testing.assert_array_equal(found.sums("loss/no teacher").numerator, [3.0, 5.0])
    assert parts.numbers[5] == (0, 1)


def test_only_parts_of_several_items_have_metrics_and_nobody_has_no_distance():
    found = TaughtParts(SETS, ["a", "b", "c"]).metrics(METRICS)
    of_loss = ["loss/a", "loss/b", "loss/no teacher"]
    assert found == [*METRICS, *of_loss, "kl_to_teacher/a", "kl_to_teacher/b"]


def test_where_nobody_teaches_there_is_no_distance():
    found = TaughtParts([(), (), ("a",)], ["a"]).metrics((*METRICS, "kl_to_teacher/turn 1"))
    assert found == ["loss", "bits_per_byte", "loss/no teacher"]
