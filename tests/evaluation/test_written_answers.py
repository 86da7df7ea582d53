"""Written answers: the figures are those of the answers in the run, over conversations and over questions."""

import numpy as np
import pytest

from potstill.errors import UserError
from potstill.evaluation import written_answers
from potstill.evaluation.written_answers import check
from potstill.files.atomic import read_json
from potstill.files.jsonl_log import read_jsonl
from potstill.metrics.conversations.answers import repeated_share
from toy_chat import chat_tokenizer

FOLDERS = {"teacher": "teacher", "start": "start", "student": "student/seed-0", "control": "control/seed-0"}


def written(work, model):
    return read_jsonl(work.run.path("answers") / FOLDERS[model] / "answers.jsonl")


def value(work, model, metric):
    found = read_json(work.run.path("evaluate") / "comparison.json")["rows"]
    return next(row["value"] for row in found if (row["model"], row["metric"]) == (model, metric))


@pytest.mark.parametrize("model", FOLDERS)
def test_figures_are_those_of_the_answers(chat_work, model):
    rows = written(chat_work, model)
    tokens = [chat_tokenizer()(row["reference"], add_special_tokens=False)["input_ids"] for row in rows]
    ids = [chat_tokenizer()(row["response"], add_special_tokens=False)["input_ids"] for row in rows]
    assert value(chat_work, model, "stopped") == np.mean([not row["hit_limit"] for row in rows])
    lengths = sum(row["tokens"] for row in rows) / sum(map(len, tokens))
    assert value(chat_work, model, "length_ratio") == pytest.approx(lengths)
    assert value(chat_work, model, "repetition") == pytest.approx(np.mean([*map(repeated_share, ids)]))
    assert value(chat_work, model, "valid_tool_calls") == 0


def test_each_answer_has_its_scores(chat_work):
    saved = read_json(chat_work.run.path("evaluate") / "answers.json")
    assert set(saved["id"]) == {row["id"] for row in written(chat_work, "start")}
    assert saved["scores"].keys() == FOLDERS.keys()
    (scores,) = saved["scores"]["student"]
    assert all(len(each) == len(saved["id"]) for name, each in scores.items() if name != "valid_tool_calls")
    assert np.mean(scores["rouge_l"]) == pytest.approx(value(chat_work, "student", "rouge_l"))


def test_a_missing_library_is_named_before_anything_runs(chat_work, monkeypatch):
    def missing(key):
        raise UserError(f"`{key}` needs a library")

    check(chat_work.recipe)
    monkeypatch.setattr(written_answers, "check_rouge", missing)
    with pytest.raises(UserError, match="`answers` needs a library"):
        check(chat_work.recipe)
