"""The responses to learn from, their counts, and the messages if there is none."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.errors import UserError
from potstill.generation.filter_answers import kept_answers
from potstill.generation.generate import Response
from potstill.recipe.generate import Generate

QUESTIONS = {
    "b": {"question": "How many?", "reference": "It is so. #### 12", "level": "hard"},
    "a": {"question": "How much?", "reference": "#### 1,000"},
    "c": {"question": "How far?", "reference": "#### 3"},
}
RIGHT = r"So \boxed{12}"


def generate(**fields):
    return Generate(by="wise", samples=3, temperature=1, seed=5, **fields)


def response(question, sample, text, hit_limit=False):
    return Response(question, sample, text, len(text), hit_limit)


RESPONSES = [
    response("b", 0, RIGHT),
    response("b", 1, "The answer is 13."),
    response("b", 2, RIGHT + "\n"),
    response("a", 0, "1000 coins", hit_limit=True),
    response("a", 1, "$1,000.00 or 5\nin all.\nThe answer is 1000"),
    response("a", 2, " \n"),
    response("c", 0, "no idea"),
    response("c", 1, "four"),
    response("c", 2, "4"),
]


def kept(responses=RESPONSES, questions=QUESTIONS, **fields):
    return kept_answers(questions, responses, generate(**fields), "abc")


def test_the_correct_ones_are_kept_once_and_whole():
    rows, summary = kept(keep="correct")
    assert [(row["id"], row["provenance"]["sample"], row["answer"]) for row in rows] == [
        ("b", 0, RIGHT),
        ("a", 1, RESPONSES[4].response),
    ]
    assert vars(summary) == {
        "questions": 3,
        "responses": 9,
        "answered": 8,
        "hit_limit": 1,
        "correct": 4,
        "outside_rules": 0,
        "repeated": 1,
        "kept": 2,
        "questions_kept": 2,
    }
    assert str(summary) == (
        "2 of 9 answers kept, to 2 of 3 questions (8 not blank, 1 hit the limit, 4 correct, 1 repeated)"
    )


def test_each_says_where_it_came_from_beside_what_its_question_had():
    row = kept(keep="correct", strategy="confidence")[0][0]
    assert row == {
        "id": "b",
        "question": "How many?",
        "reference": "It is so. #### 12",
        "level": "hard",
        "answer": RIGHT,
        "provenance": {
            "teacher": "wise",
            "strategy": "confidence",
            "prompt_fingerprint": "abc",
            "sample": 0,
            "seed": 5,
            "tokens": len(RIGHT),
            "rule": "boxed",
            "verdict": "correct",
        },
    }


def test_all_are_the_wrong_ones_too_but_none_that_is_blank_repeated_or_cut():
    rows, summary = kept()
    found = [(row["id"], row["provenance"]["sample"], row["provenance"]["verdict"]) for row in rows]
    assert found == [
        ("b", 0, "correct"),
        ("b", 1, "wrong"),
        ("a", 1, "correct"),
        ("c", 0, "needs review"),
        ("c", 1, "needs review"),
        ("c", 2, "wrong"),
    ]
    assert (summary.kept, summary.correct, summary.repeated) == (6, 4, 1)


def test_without_numbers_every_whole_answer_is_kept_and_none_is_judged():
    told = {"b": {"question": "How?", "reference": "So."}, "a": {"question": "Why?", "reference": "Because."}}
    answers = [response("a", 0, "why"), response("b", 0, "so"), response("b", 1, "so "), response("a", 1, "-", True)]
    rows, counts = kept_answers(told, answers, generate(), "abc", by_number=False)
    assert [row["answer"] for row in rows] == ["so", "why"]
    assert all(row["provenance"].keys().isdisjoint({"rule", "verdict"}) for row in rows)
    assert counts.correct is None
    assert "correct" not in str(counts)


def test_what_one_question_is_told_another_may_be_told_too():
    rows, summary = kept([response("a", 0, "12"), response("b", 0, "12")])
    assert [row["id"] for row in rows] == ["b", "a"]
    assert summary.repeated == 0


@given(order=st.randoms(use_true_random=False), keep=st.sampled_from(["all", "correct"]))
def test_the_order_in_which_responses_were_written_changes_nothing(order: random.Random, keep):
    shuffled = order.sample(RESPONSES, len(RESPONSES))
    assert kept(shuffled, keep=keep) == kept(keep=keep)


@pytest.mark.parametrize(
    ("responses", "keep", "sentence"),
    [
        (
            [response("a", 0, ""), response("b", 0, "\n", hit_limit=True)],
            "all",
            "`generate`: teacher 'wise' gave only blank answers to 3 questions; ask it under another `prompt`, or ask "
            "another teacher",
        ),
        (
            [response("a", 0, "1000", hit_limit=True), response("b", 0, "a 12", hit_limit=True)],
            "correct",
            "`generate.max_new_tokens`: no answer of teacher 'wise' ended within 256 tokens, and unfinished "
            "answers are not learned; raise it, or ask for short answers in the `prompt`",
        ),
        (
            [response("a", 0, "7"), response("b", 0, "what?")],
            "correct",
            "`generate.keep: correct` keeps no answer of teacher 'wise': of 2 to 3 questions, none is correct; keep "
            "`all`, ask under another `prompt`, or ask another teacher",
        ),
        (
            [response("a", 0, "1000", hit_limit=True), response("b", 0, "what?")],
            "correct",
            "`generate.keep: correct` keeps no answer of teacher 'wise': of 2 to 3 questions, those that are correct "
            "did not end within the limit; keep `all`, ask under another `prompt`, or ask another teacher",
        ),
    ],
)
def test_where_nothing_can_be_kept_it_is_said_why(responses, keep, sentence):
    with pytest.raises(UserError) as told:
        kept(responses, keep=keep)
    assert str(told.value) == sentence


@pytest.mark.parametrize("keep", ["all", "correct"])
def test_a_reference_without_an_answer_is_told_with_its_question(keep):
    with pytest.raises(UserError, match=r"question c: an answer must end in '#### N'"):
        kept(questions={**QUESTIONS, "c": {"reference": "three"}}, keep=keep)


def test_of_several_whole_answers_the_nearest_to_the_reference_is_kept():
    told = [response("b", 0, "No."), response("b", 1, "It is so"), response("b", 2, "It is so #### 12", True)]
    rows, summary = kept(told, keep="nearest")
    assert [(row["id"], row["answer"]) for row in rows] == [("b", "It is so")]
    assert (summary.kept, summary.questions_kept) == (1, 1)


def test_answers_against_the_rules_are_counted_and_if_none_is_left_the_rules_are_named():
    told = [response("b", 0, "No."), response("a", 0, "It is 12")]
    rows, summary = kept(told, matching="12")
    assert [row["id"] for row in rows] == ["a"]
    assert summary.outside_rules == 1
    assert "1 against the rules" in str(summary)
    with pytest.raises(UserError, match="2 of 2 ended within the limit, and none of them obeys `matching`"):
        kept(told, matching="13")
