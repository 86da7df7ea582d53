"""Shown prompts: the first held-out prompts, with the reference and every model's answer."""

from potstill.evaluation.held_out_prompts import held_out_prompts
from potstill.evaluation.shown_prompts import SHOWN, shown_prompts
from potstill.files.jsonl_log import read_jsonl


def test_the_first_prompts_are_shown_with_the_answers_of_all_models(chat_work):
    prompts, shown = held_out_prompts(chat_work)[:SHOWN], shown_prompts(chat_work, str.upper)
    assert len(shown) == SHOWN
    for prompt, one in zip(prompts, shown, strict=True):
        assert one.title == prompt.conversation.where
        assert [text for _, text in one.turns] == [message.content for message in prompt.before]
        assert [answer.model for answer in one.answers] == [None, "TEACHER", "STUDENT", "CONTROL"]
        assert one.answers[0].text == prompt.reference
    rows = {row["id"]: row for row in read_jsonl(chat_work.run.path("answers") / "student/seed-0" / "answers.jsonl")}
    for prompt, one in zip(prompts, shown, strict=True):
        assert one.answers[2].text == rows[prompt.id]["response"]
        assert one.answers[2].cut == rows[prompt.id]["hit_limit"]


def test_they_are_on_the_page(chat_work):
    html = (chat_work.run.path("report") / "index.html").read_text(encoding="utf-8")
    assert "The same prompts, answered" in html
    assert "Turn by turn" in html
    assert "held-out conversations" in html
