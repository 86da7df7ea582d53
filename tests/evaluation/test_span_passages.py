"""Which documents are shown: one that is as hard as is usual, and the hardest ones."""

import math

import numpy as np

from potstill.evaluation.span_passages import shown_documents
from potstill.metrics.held_out_text import DocumentScores


def scores(nll):
    one = DocumentScores.zeros([10] * len(nll))
    one.nll[:] = nll
    return one


def test_a_typical_document_is_followed_by_the_hardest_ones():
    teacher, student = scores([5.0] * 5), scores(np.asarray([5.0, 9.0, 7.0, 30.0, 7.5]))
    shown = shown_documents(range(5), student, teacher)
    assert [one.number for one in shown] == [4, 3, 1]
    bits = [excess / 10 / math.log(2) for excess in (2.5, 25, 4)]
    assert [one.title for one in shown] == [
        f"Held-out document 4, typical: +{bits[0]:.2f} bits per byte",
        f"Held-out document 3, hardest: +{bits[1]:.2f} bits per byte",
        f"Held-out document 1, second hardest: +{bits[2]:.2f} bits per byte",
    ]


def test_no_document_is_called_hard_that_is_not_harder_than_the_typical_one():
    teacher, student = scores([5.0] * 5), scores(np.asarray([1.0, 2.0, 7.0, 30.0, 40.0]))
    shown = shown_documents([0, 1, 2], student, teacher)
    assert [one.number for one in shown] == [2]
    assert [one.title for one in shown_documents([0], student, teacher)] == [
        f"Held-out document 0, typical: −{0.4 / math.log(2):.2f} bits per byte"
    ]
    assert shown_documents([], student, teacher) == []


def test_a_long_document_is_no_harder_than_its_bytes():
    student = scores([10.0, 10.0, 60.0])
    student.bytes[2] = 100
    assert [one.number for one in shown_documents(range(3), student, scores([5.0, 4.0, 5.0]))] == [2, 1]
