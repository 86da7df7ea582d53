"""Align: teacher and student read the same tokens of the assistant, whatever each template writes around them."""

from dataclasses import replace

import pytest

import toy_chat
from potstill.data.conversations.align import aligned_samples, as_teachers_read
from potstill.data.conversations.conversation import Message
from potstill.data.labels import IGNORE_INDEX, supervised_mask
from potstill.data.prompts.collator import AlignedCollator, teacher_batch
from potstill.errors import UserError
from potstill.recipe.conversations import TeacherReading
from toy_chat import CASES, chat_tokenizer, settings

OTHER = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role | upper }}: {{ m.content | trim }}"
    "<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>ASSISTANT: {% endif %}"
)
"""A template with other headers and the same end."""


def reading(system=None, sequence_length=None, **more):
    return TeacherReading(system=system, sequence_length=sequence_length, **more)


def aligned(conversation, student, teacher, chosen, shown):
    """The samples of one reading."""
    found = aligned_samples(conversation, student, teacher, chosen, {"here": shown})
    return [sample["here"] for sample in found]


def taught(ids, labels):
    return chat_tokenizer().decode([label for label in labels if label != IGNORE_INDEX])


def pairs(case, teacher, student="chatml", system=None, **more):
    return aligned(
        CASES[case], toy_chat.template(student), toy_chat.template(teacher), settings(**more), reading(system)
    )


@pytest.mark.parametrize("case", ["plain", "system", "turns"])
def test_another_template_has_the_same_answers(tmp_path, case):
    file = tmp_path / "other.jinja"
    file.write_text(OTHER)
    (sample,) = pairs(case, str(file))
    answers = "It rains.<|im_end|>" + ("It snows.<|im_end|>Go.<|im_end|>" if case == "turns" else "")
    assert taught(sample["input_ids"], sample["labels"]) == answers
    assert taught(sample["teacher_input_ids"], sample["teacher_labels"]) == answers
    assert sample["input_ids"] != sample["teacher_input_ids"]


def test_the_teacher_alone_may_have_a_system_prompt():
    for case in ("plain", "system", "turns"):
        (sample,) = pairs(case, "chatml", system="You explain to a child.")
        text = chat_tokenizer().decode(sample["teacher_input_ids"])
        assert text.startswith("<|im_start|>system\nYou explain to a child.<|im_end|>\n")
        assert "Be brief" not in text
        assert "a child" not in chat_tokenizer().decode(sample["input_ids"])
        ours, theirs = ([one for one in sample[key] if one >= 0] for key in ("labels", "teacher_labels"))
        assert ours == theirs


def test_a_template_that_rewrites_turns_parts_those_of_the_other_too():
    found = pairs("turns", "qwen")
    assert len(found) == 3
    for sample, answer in zip(found, ("It rains.", "It snows.", "Go."), strict=True):
        assert taught(sample["input_ids"], sample["labels"]) == f"{answer}<|im_end|>"
        assert taught(sample["teacher_input_ids"], sample["teacher_labels"]) == f"{answer}<|im_end|>"


def test_a_batch_is_aligned():
    samples = [*pairs("turns", "chatml", system="You explain."), *pairs("everything", "qwen"), *pairs("tools", "qwen")]
    batch = AlignedCollator(chat_tokenizer().pad_token_id)(samples)
    teacher = teacher_batch(batch)
    for row, sample in enumerate(samples):
        student_row = batch["labels"][row, 1:][supervised_mask(batch)[row, :-1]].tolist()
        teacher_row = teacher["labels"][row, 1:][supervised_mask(teacher)[row, :-1]].tolist()
        assert student_row == teacher_row == [label for label in sample["labels"] if label >= 0]


def test_other_forms_of_a_tool_call_are_learned_where_they_agree(tmp_path):
    file = tmp_path / "other.jinja"
    file.write_text(
        OTHER.replace(
            "<|im_end|>{% endfor",
            "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }} {{ c.function.arguments | tojson }}"
            "{% endfor %}<|im_end|>{% endfor",
        )
    )
    (sample,) = pairs("tools", str(file))
    ours, theirs = ([one for one in sample[key] if one >= 0] for key in ("labels", "teacher_labels"))
    assert ours == theirs
    text = chat_tokenizer().decode(ours)
    assert "eather" in text
    assert "Rome" in text
    assert "CALL" not in text
    assert text.endswith("Yes, in Rome.<|im_end|>")


def test_templates_that_end_a_turn_with_other_tokens_are_refused():
    with pytest.raises(UserError, match=r"ends a turn with '<\|eot_id\|>' and .* with '<\|im_end\|>'.*give both"):
        pairs("plain", "llama-3")


def test_what_is_too_long_for_one_of_the_two_is_left_out():
    given, chat, system = CASES["turns"], toy_chat.template(), "You explain to a child. " * 4
    (whole,) = aligned(given, chat, chat, settings(), reading(system))
    ours, theirs = len(whole["input_ids"]), len(whole["teacher_input_ids"])
    assert theirs > ours
    fits = settings(sequence_length=ours)
    assert aligned(given, chat, chat, fits, reading(system, theirs)) == [whole]
    assert aligned(given, chat, chat, fits, reading(system)) == []
    assert aligned(given, chat, chat, settings(sequence_length=ours - 1), reading(system, theirs)) == []


@pytest.mark.parametrize("teacher_length", [150, 200, 4096])
@pytest.mark.parametrize("length", [60, 90, 4096])
def test_both_lose_the_same_end(length, teacher_length):
    given, chat, system = CASES["turns"], toy_chat.template(), "You explain to a child. " * 4
    (whole,) = aligned(given, chat, chat, settings(), reading(system))
    chosen = settings(sequence_length=length, too_long="cut_right")
    (cut,) = aligned(given, chat, chat, chosen, reading(system, teacher_length))
    assert len(cut["input_ids"]) == len(cut["labels"]) <= length
    assert len(cut["teacher_input_ids"]) == len(cut["teacher_labels"]) <= teacher_length
    ours, theirs = ([one for one in cut[key] if one >= 0] for key in ("labels", "teacher_labels"))
    assert ours == theirs == [one for one in whole["labels"] if one >= 0][: len(ours)]
    assert cut["input_ids"] == whole["input_ids"][: len(cut["input_ids"])]


def test_a_pair_that_the_cut_empties_is_left_out():
    chat = toy_chat.template()
    chosen = settings(sequence_length=8, too_long="cut_right")
    assert aligned(CASES["turns"], chat, chat, chosen, reading()) == []


def test_the_teacher_alone_may_be_shown_each_answer():
    shown = reading("{{ system }} Be right.", user="{{ question }} (The answer: {{ reference }})")
    chat = toy_chat.template()
    given = replace(CASES["turns"], messages=(Message("system", "Be brief."), *CASES["turns"].messages))
    (sample,) = aligned(given, chat, chat, settings(), shown)
    text = chat_tokenizer().decode(sample["teacher_input_ids"])
    assert "<|im_start|>system\nBe brief. Be right.<|im_end|>" in text
    for question, answer in (("Why?", "It rains."), ("And now?", "It snows."), ("So?", "Go.")):
        assert f"<|im_start|>user\n{question} (The answer: {answer})<|im_end|>" in text
    assert "The answer" not in chat_tokenizer().decode(sample["input_ids"])
    ours, theirs = ([one for one in sample[key] if one >= 0] for key in ("labels", "teacher_labels"))
    assert ours == theirs


def test_the_answer_after_a_tools_result_is_the_one_that_is_shown():
    shown = as_teachers_read(CASES["tools"], reading(user="{{ reference }}"))
    assert [message.content for message in shown.messages if message.role == "user"] == ["Yes, in Rome."]


def test_a_prompt_that_cannot_be_filled_in_names_its_key_and_the_row():
    with pytest.raises(UserError, match=r"chats\.jsonl:7: `corpus\.teacher\.user` cannot be filled in .*correct"):
        as_teachers_read(CASES["plain"], reading(user="{{ question / 2 }}"))
    with pytest.raises(UserError, match=r"`corpus\.teacher\.system` comes out blank"):
        as_teachers_read(CASES["plain"], reading("{{ system }}"))


def test_all_readings_learn_the_same_tokens_where_one_has_no_room():
    chat, system = toy_chat.template(), "You explain to a child. " * 4
    given = {"plain": reading(), "long": reading(system), "told": reading(user="{{ question }} {{ reference }}")}
    (whole,) = aligned_samples(CASES["turns"], chat, chat, settings(), given)
    assert whole["plain"] == aligned(CASES["turns"], chat, chat, settings(), reading())[0]
    most = len(whole["told"]["teacher_input_ids"])
    assert len(whole["long"]["teacher_input_ids"]) > most
    assert aligned_samples(CASES["turns"], chat, chat, settings(sequence_length=most), given) == []
    chosen = settings(sequence_length=most, too_long="cut_right")
    (cut,) = aligned_samples(CASES["turns"], chat, chat, chosen, given)
    for one in cut.values():
        assert (one["input_ids"], one["labels"]) == (cut["long"]["input_ids"], cut["long"]["labels"])
        assert [label for label in one["teacher_labels"] if label >= 0] == [
            label for label in one["labels"] if label >= 0
        ]
    assert len(cut["plain"]["input_ids"]) < len(whole["plain"]["input_ids"])


def test_a_reading_is_named_by_its_key():
    chat = toy_chat.template()
    with pytest.raises(UserError, match=r"`strategies\.a\.teacher\.user` cannot be filled in"):
        aligned_samples(
            CASES["plain"], chat, chat, settings(), {"strategies.a.teacher": reading(user="{{ question / 2 }}")}
        )
