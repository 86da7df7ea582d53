"""Answers: what each metric says of answers whose figures a person can work out."""

import numpy as np
import pytest

from potstill.metrics.conversations.answers import (
    AnswerScorer,
    ReferenceAnswer,
    WrittenAnswer,
    repeated_share,
    without_reasoning,
)

TOOLS = [{"name": "weather", "parameters": {"required": ["city"]}}]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'


def written(text, ids=(), tokens=2, stopped=True):
    return WrittenAnswer(text, ids, tokens, stopped)


def scored(answers, references, encode=None):
    found = AnswerScorer(references, encode)(answers)
    return {name: (np.asarray(sums.numerator), np.asarray(sums.denominator)) for name, sums in found.items()}


def test_the_metrics_of_each_answer():
    references = [ReferenceAnswer("the cat sat", 4), ReferenceAnswer("a dog ran off", 5)]
    answers = [written("the cat sat", [1, 2, 3], 3), written("", [], 8, stopped=False)]
    found = scored(answers, references)
    assert list(found) == ["stopped", "length_ratio", "rouge_l", "rouge_l_random", "repetition"]
    for name, (numerator, denominator) in {
        "stopped": ([1, 0], [1, 1]),
        "length_ratio": ([3, 8], [4, 5]),
        "rouge_l": ([1, 0], [1, 1]),
        "rouge_l_random": ([0, 0], [1, 1]),
        "repetition": ([0, 0], [1, 1]),
    }.items():
        np.testing.assert_array_equal(found[name], (numerator, denominator), err_msg=name)


def test_reasoning_is_not_compared():
    references = [ReferenceAnswer("<think>\nhm\n</think>\n\nyes", 4), ReferenceAnswer("no", 1)]
    found = scored([written("<think>well, no</think>yes"), written("<think>no no no")], references)
    np.testing.assert_array_equal(found["rouge_l"][0], [1, 0])


def test_the_baseline_of_a_metric_is_its_value_on_other_references():
    references = [ReferenceAnswer(text, 1) for text in ("same words", "same words", "other text")]
    found = scored([written("same words")] * 3, references)
    np.testing.assert_array_equal(found["rouge_l"][0], [1, 1, 0])
    # There are two derangements of three, which give each answer each other reference half of the time.
    np.testing.assert_allclose(found["rouge_l_random"][0], [0.5, 0.5, 1], atol=0.25)


def test_a_sentence_s_embedding_is_that_of_the_answer_without_its_reasoning():
    asked = []

    def encode(texts):
        asked.append(list(texts))
        return np.array([[1.0, float(text == "b")] for text in texts])

    found = scored([written("<think>x</think>b"), written("a")], [ReferenceAnswer("a", 1)] * 2, encode)
    assert asked == [["a", "a"], ["b", "a"]]
    np.testing.assert_allclose(found["sentence_cosine"][0], [2**-0.5, 1])
    assert "sentence_cosine_random" in found


def test_tool_calls_count_only_where_the_reference_makes_one():
    references = [
        ReferenceAnswer(f"<think>hm</think>{CALL}", 9, TOOLS),
        ReferenceAnswer(CALL, 9, TOOLS),
        ReferenceAnswer("It is cold.", 3, TOOLS),
        ReferenceAnswer(CALL, 9, [{"name": "another"}]),
    ]
    answers = [written(CALL), written("It is cold."), written(CALL), written(CALL)]
    numerator, denominator = scored(answers, references)["valid_tool_calls"]
    np.testing.assert_array_equal(numerator, [1, 0])
    np.testing.assert_array_equal(denominator, [1, 1])
    assert AnswerScorer(references, None).calls == 2


@pytest.mark.parametrize("calls", [0, 1])
def test_without_calls_there_is_no_figure_of_calls(calls):
    references = [ReferenceAnswer(CALL, 9, TOOLS)] * calls + [ReferenceAnswer("a", 1)] * 2
    assert "valid_tool_calls" not in scored([written("a")] * len(references), references)


@pytest.mark.parametrize(
    ("ids", "share"),
    [([], 0), ([1, 2, 3], 0), ([1, 2, 3, 4], 0), ([1] * 8, 0.8), ([1, 2, 3, 4, 1, 2, 3, 4], 0.2), (range(50), 0)],
)
def test_the_share_of_repeated_4_grams(ids, share):
    assert repeated_share(list(ids)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yes", "yes"),
        ("<think>\nhm\n</think>\n\nyes\n", "yes"),
        ("hm</think>yes", "yes"),
        ("<think>hm", ""),
        ("<think>a</think><think>b</think>c", "c"),
        ("", ""),
    ],
)
def test_what_is_said_after_the_reasoning(text, said):
    assert without_reasoning(text) == said
