"""Questions: each has its reference and is in one part only; errors name the row."""

import importlib.util
import json

import pytest

import toy_questions
from potstill.data.questions import split_questions
from potstill.errors import UserError
from potstill.recipe.questions import Questions


def corpus(folder, rows=None, **more):
    file = toy_questions.save(folder, rows)
    return Questions.model_validate({"questions": [{"path": str(file)}], "sequence_length": 64, **more})


def texts(questions):
    return [each.question for each in questions]


def test_a_question_is_on_one_side_and_keeps_it_when_there_are_more(tmp_path):
    rows = toy_questions.rows(200)
    few, many = (split_questions(corpus(tmp_path, rows[:size], held_out=0.2, validation=10)) for size in (100, 200))
    for split in (few, many):
        parts = [texts(split.train), texts(split.validation), texts(split.held_out)]
        together = [text for part in parts for text in part]
        assert len(set(together)) == len(together) == (100 if split is few else 200)
        assert len(parts[1]) == 10
    assert set(texts(few.held_out)) == set(texts(many.held_out)) & {row["question"] for row in rows[:100]}


def test_everything_of_a_row_is_kept_and_says_where_it_stood(tmp_path):
    rows = [row | {"level": number} for number, row in enumerate(toy_questions.rows(30), 1)]
    split = split_questions(corpus(tmp_path, rows))
    for each in [*split.train, *split.held_out]:
        assert each.id == f"questions.jsonl:{each.columns['level']}"
        row = rows[each.columns["level"] - 1]
        assert each.fields == row | {"reference": row["answer"]}


def test_a_template_makes_question_and_reference_of_any_columns(tmp_path):
    file = tmp_path / "sums.jsonl"
    rows = [{"left": n, "right": 2 * n, "extra": {"total": 3 * n}} for n in range(1, 40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"path": str(file), "question": "{{ left }} + {{ right }}?", "reference": "#### {{ extra.total }}"}
    split = split_questions(Questions.model_validate({"questions": [source], "sequence_length": 64}))
    assert {(each.question, each.reference) for each in split.train} <= {
        (f"{n} + {2 * n}?", f"#### {3 * n}") for n in range(1, 40)
    }


def test_a_question_that_is_held_out_is_not_trained_on(tmp_path):
    rows = toy_questions.rows(20)
    (tmp_path / "test").mkdir()
    test = toy_questions.save(tmp_path / "test", rows[:5])
    split = split_questions(corpus(tmp_path, [*rows, rows[7]], held_out={"questions": [{"path": str(test)}]}))
    assert set(texts(split.held_out)) == {row["question"] for row in rows[:5]}
    assert set(texts(split.train)) == {row["question"] for row in rows[5:]}
    assert split.repeated == 6


def test_counts_take_the_same_ones_each_time(tmp_path):
    whole = split_questions(corpus(tmp_path))
    part = split_questions(corpus(tmp_path, train=7))
    assert texts(part.train) == texts(whole.train)[:7]
    again = split_questions(corpus(tmp_path, toy_questions.rows()[::-1], train=7))
    assert texts(again.train) == texts(part.train)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            {"question": "Why?", "answer": None},
            r"questions.jsonl:61: `corpus.questions.0.reference` uses `answer`, and",
        ),
        ({"question": "Why?"}, "uses `answer`, and the columns are question"),
        ({"question": "Why?", "answer": " "}, r"the row has no reference \(`corpus.questions.0.reference` comes out b"),
        ({"question": "", "answer": "x"}, "the row has no question"),
    ],
)
def test_a_row_without_question_or_reference_is_named(tmp_path, row, why):
    with pytest.raises(UserError, match=why):
        split_questions(corpus(tmp_path, [*toy_questions.rows(), row]))


def test_too_few_are_told(tmp_path):
    with pytest.raises(UserError, match="give 3 questions, which leaves 0 to train on"):
        split_questions(corpus(tmp_path, toy_questions.rows(3), validation=3))
    (tmp_path / "text.txt").write_text("no table")
    with pytest.raises(UserError, match="is plain text, without columns; give "):
        split_questions(corpus(tmp_path, questions=[{"path": str(tmp_path / "text.txt")}]))


def test_values_are_what_the_file_has(tmp_path):
    rows = [{"n": n, "long": 10**30, "half": n / 2, "question": f"{n}?", "answer": "#### 1"} for n in range(30)]
    (tmp_path / "q.json").write_text(json.dumps([*rows, rows[0] | {"question": "late?", "n": "text", "new": [1]}]))
    (tmp_path / "q.csv").write_text("question,answer,level\n" + "".join(f"{n:03d},NA,2020-01-01\n" for n in range(30)))
    for name, one in (
        ("q.json", rows[7]),
        ("q.csv", {"question": "007", "answer": "NA", "level": "2020-01-01"}),
    ):
        split = split_questions(corpus(tmp_path, questions=[{"path": str(tmp_path / name)}], held_out=0.5))
        assert one in [each.columns for each in (*split.train, *split.held_out)]


GENERATED = {"generator": "chain_sum", "count": 40, "settings": {"max_terms": 2}, "reference": "#### {{ answer }}"}


@pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed")
def test_questions_are_made_the_same_from_the_same_seed():
    def made(**more):
        source = GENERATED | more
        return split_questions(Questions.model_validate({"questions": [source], "sequence_length": 64}))

    assert texts(made().train) == texts(made().train) != texts(made(seed=1).train)
    assert made().train[0].reference.startswith("#### ")
    assert made().train[0].id.startswith("chain_sum-0:")
    with pytest.raises(UserError, match=r"`corpus.questions.0`: reasoning-gym cannot make 'chain_sums'"):
        made(generator="chain_sums")
    with pytest.raises(UserError, match=r"cannot make 'chain_sum': .*colour"):
        made(settings={"colour": 1})


def test_without_the_generator_s_package_it_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
    with pytest.raises(
        UserError, match=r"needs reasoning-gym, which cannot be imported .*pip install 'potstill\[questions\]'"
    ):
        split_questions(Questions.model_validate({"questions": [GENERATED], "sequence_length": 64}))
