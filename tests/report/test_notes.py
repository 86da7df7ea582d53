"""The notes say how models were measured, and the limits of the figures."""

from pathlib import Path

import minimal
import toy_chat_runs
from potstill.report.notes import across_tokenizers, compared_turns, counterparts, notes

RUN = Path("runs/r")


def _said(recipe, undecided=None, decided=0):
    return " ".join(notes(recipe, RUN, undecided or {}, decided))


def test_of_a_text_it_is_said_how_it_was_held_out(tmp_path):
    said = _said(minimal.recipe(tmp_path))
    assert "chosen by a hash of their text before documents were cut" in said
    assert "in windows of 8 tokens" in said
    assert "review" not in said


def test_what_is_missing_is_said(tmp_path):
    whole, less = minimal.recipe(tmp_path, "seeds=[0, 1]"), minimal.recipe(tmp_path, "control=null")
    assert "control out" in _said(less)
    assert "One seed" in _said(less)
    assert "control out" not in _said(whole)
    assert "One seed" not in _said(whole)


def test_it_is_said_what_weights_were_chosen_by(tmp_path):
    own = ["corpus.validation=2"]
    assert "by cross-entropy on validation text" in _said(minimal.recipe(tmp_path, "distil.keep=best", *own))
    assert "by loss, on text" in _said(minimal.recipe(tmp_path, "select={by: {loss: 1}}", "distil.snapshots=3", *own))


def test_of_questions_it_is_said_how_models_were_asked(tmp_path):
    said = _said(minimal.questions(tmp_path))
    assert "the student’s prompt of the strategy base" in said
    assert "fine-tuned on the same answers as base" in said
    assert "how much students could still improve" not in said
    assert "how much students could still improve" in _said(minimal.questions(tmp_path, "answers.teachers=false"))


def test_without_numbers_nothing_is_said_of_them(tmp_path):
    said = _said(minimal.questions(tmp_path, "answers.number=false"))
    assert "first number in a box" not in said
    assert "ROUGE-L" in said


def test_of_conversations_it_is_said_what_is_judged(tmp_path):
    said = _said(toy_chat_runs.recipe(tmp_path, "control=null"))
    assert "All turns are judged" in said
    assert "with at most 8 tokens" in said
    assert "chosen by a hash of their messages" in said
    assert "control out" in said
    assert "over conversations" in said
    assert "corpus.teacher" not in said
    assert "`corpus.teacher`" in _said(toy_chat_runs.recipe(tmp_path, "corpus.teacher={system: You know coins.}"))


def test_what_waits_for_a_person_is_counted_by_model(tmp_path):
    said = _said(minimal.questions(tmp_path), {"student base": [1, 2], "start": [0]}, decided=4)
    assert "3 answers that no rule settles" in said
    assert f"`potstill review {RUN}`" in said
    assert "(student base 3)" in said
    assert "4 different answers" in said
    assert "potstill review" not in _said(minimal.questions(tmp_path), {"start": [0]})


def test_tasks_and_baselines_are_explained(tmp_path):
    said = _said(minimal.recipe(tmp_path, "evaluate.tasks=[{task: piqa}]", "evaluate.models={gpt: gpt2}"))
    assert "evaluate/comparison.json" in said
    assert "gpt is gpt2" in said


def test_of_a_teacher_of_another_tokenizer_it_is_said_what_was_compared():
    counts = {"bytes": 200, "bytes_in_spans": 150, "spans": 10, "student_tokens": 25, "teacher_tokens": 40}
    said = " ".join(across_tokenizers({"big": counts}))
    assert "75.0% of the held-out text is compared with the teacher, in 10 spans of 2.50 tokens of the student" in said
    assert "Bits per byte compare all models" in said
    assert "Teacher and student have different tokenizers: 75.0%" in said
    assert across_tokenizers(None) == ()


def test_the_share_of_common_tokens_is_told_of_each_teacher():
    told = counterparts({"teacher a": 0.913, "teacher b": 0.5})
    assert len(told) == 2
    assert "91.3% of the teacher a’s probability" in told[0]
    assert counterparts({}) == ()


def test_of_a_teacher_with_a_chat_template_of_its_own_it_is_said_what_was_compared():
    counts = {"bytes": 180, "learned": 200, "compared": 150, "spans": 10, "student_tokens": 25, "teacher_tokens": 40}
    (said,) = compared_turns({"big": counts})
    told = "75.0% of the learned text is compared with the teacher, in 10 spans of 2.50 tokens of the student and 4.00"
    assert f"{told} of the teacher. Only answers" in said
    (said,) = compared_turns({"big": counts, "other": {**counts, "compared": 100}})
    told = told.replace("the teacher", "the teacher big")
    assert f"{told} of the teacher; 50.0% of the learned text is compared with the teacher other, in 10 spans" in said
    (said,) = compared_turns({"big": counts | {"lost_by_student": 1}})
    assert "of the teacher, and of 180 bytes the student's tokens do not give back 1. Only answers" in said
    assert compared_turns(None) == ()


def test_of_several_teachers_each_is_named_with_what_was_compared():
    counts = {"bytes": 200, "bytes_in_spans": 150, "spans": 10, "student_tokens": 25, "teacher_tokens": 40}
    said = across_tokenizers({"big": counts, "other": {**counts, "bytes_in_spans": 100}})
    assert said[0].startswith("The teacher big and the student have different tokenizers: 75.0%")
    assert said[1].startswith("The teacher other and the student have different tokenizers: 50.0%")
