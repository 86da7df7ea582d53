"""Which documents are shown: those whose bytes surprise the student more than the teacher by what is usual."""

import numpy as np

from potstill.evaluation.span_passages import typical_documents
from potstill.metrics.held_out_text import DocumentScores


def scores(nll):
    one = DocumentScores.zeros([10] * len(nll))
    one.nll[:] = nll
    return one


def test_the_documents_nearest_to_the_median_come_first():
    teacher, student = scores([5.0] * 5), scores(np.asarray([5.0, 9.0, 7.0, 30.0, 7.5]))
    assert typical_documents(range(5), student, teacher, 3) == [4, 2, 1]
    assert typical_documents([0, 3], student, teacher, 1) == [0]
    assert typical_documents([], student, teacher, 2) == []
