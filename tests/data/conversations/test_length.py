"""Length: no sample is too long or without a learned token, and whatever is cut keeps its meaning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy_chat
from potstill.data.conversations import length
from potstill.data.conversations.length import fitting_samples
from potstill.data.conversations.render import render
from potstill.data.labels import IGNORE_INDEX
from toy_chat import CASES, assistant, call, chat_tokenizer, conversation, learned, marked, settings, user

SYSTEM = {"role": "system", "content": "Be brief."}
LONG = conversation(
    SYSTEM, *(one for n in range(4) for one in (user(f"What is {n}?"), assistant(f"It is the number {n}.")))
)


def fitted(given, length, too_long, template="chatml", **more):
    chosen = settings(sequence_length=length, too_long=too_long, template=template, **more)
    chat = toy_chat.template(template)
    return fitting_samples(given, render(given, chat, chosen), chat, chosen)


def size(given, template="chatml"):
    return len(fitted(given, 4096, "drop", template)[0].input_ids)


@pytest.mark.parametrize("too_long", ["drop", "cut_left", "cut_right", "split_turns"])
def test_what_fits_stays_whole(too_long):
    (whole,) = fitted(LONG, size(LONG), too_long)
    assert whole == fitted(LONG, 4096, "drop")[0]


def test_a_long_conversation_is_dropped():
    assert fitted(LONG, size(LONG) - 1, "drop") == []


def test_cut_right_keeps_the_first_tokens():
    (whole,), (cut,) = fitted(LONG, 4096, "drop"), fitted(LONG, 100, "cut_right")
    assert (cut.input_ids, cut.labels) == (whole.input_ids[:100], whole.labels[:100])
    assert [turn.turn for turn in cut.turns] == [turn.turn for turn in whole.turns if turn.start < 100]
    assert all(turn.stop <= 100 for turn in cut.turns)
    first = whole.turns[0].start
    # One token of the first answer is learned, or none.
    assert learned(fitted(LONG, first + 1, "cut_right")[0]) == ["I"]
    assert fitted(LONG, first, "cut_right") == []


def test_cut_left_keeps_the_system_prompt_and_the_last_tokens():
    (whole,), (cut,) = fitted(LONG, 4096, "drop"), fitted(LONG, 120, "cut_left")
    assert len(cut.input_ids) == 120
    system = len(chat_tokenizer()("<|im_start|>system\nBe brief.<|im_end|>\n").input_ids)
    assert marked(cut).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert cut.input_ids[system:] == whole.input_ids[-(120 - system) :]
    assert cut.turns[-1].turn == 4
    assert cut.turns[-1].stop - len(cut.input_ids) == whole.turns[-1].stop - len(whole.input_ids)
    for turn in cut.turns:
        assert (
            cut.labels[turn.stop - 1]
            == cut.input_ids[turn.stop - 1]
            == chat_tokenizer().convert_tokens_to_ids("<|im_end|>")
        )


def test_the_token_after_a_cut_is_not_learned():
    (whole,) = fitted(LONG, 4096, "drop")
    system = len(chat_tokenizer()("<|im_start|>system\nBe brief.<|im_end|>\n").input_ids)
    middle = (whole.turns[2].start + whole.turns[2].stop) // 2
    (cut,) = fitted(LONG, len(whole.input_ids) - middle + system, "cut_left")
    assert cut.input_ids[system] == whole.input_ids[middle]
    assert cut.labels[system] == IGNORE_INDEX
    assert cut.labels[system + 1 :] == whole.labels[middle + 1 :]


def test_cut_left_gives_a_long_system_prompt_up():
    (cut,) = fitted(LONG, 30, "cut_left")
    assert len(cut.input_ids) == 30
    assert "system" not in marked(cut)
    # Gemma has it in the first user's turn.
    assert "Be brief" not in marked(fitted(LONG, 60, "cut_left", "gemma")[0])


@pytest.mark.parametrize("template", ["chatml", "llama-3", "gemma", "plain", "qwen"])
def test_split_turns_repeats_the_system_prompt(template):
    one = conversation(SYSTEM, user("What is 0?"), assistant("It is the number 0."))
    two = conversation(*(toy_chat.template(template).message(message) for message in LONG.messages[:5]))
    longest = max(len(sample.input_ids) for sample in fitted(two, 4096, "drop", template))
    found = fitted(LONG, longest, "split_turns", template)
    alone = marked(fitted(one, 4096, "drop", template)[0])
    head = alone[: alone.index("What")]
    assert all(marked(sample).startswith(head + "What") for sample in found)
    assert [turn.turn for sample in found for turn in sample.turns] == [1, 2, 3, 4]
    end = toy_chat.template(template).end_token
    assert [text for sample in found for text in learned(sample)] == [f"It is the number {n}.{end}" for n in range(4)]
    if template != "qwen":
        assert len(found) == 2


def test_split_turns_leaves_out_an_exchange_that_is_too_long_alone():
    given = conversation(
        SYSTEM,
        user("Why?"),
        assistant("It rains."),
        user("Tell me all. " * 30),
        assistant("No."),
        user("So?"),
        assistant("Go."),
    )
    found = fitted(given, 70, "split_turns")
    assert [text for sample in found for text in learned(sample)] == ["It rains.<|im_end|>", "Go.<|im_end|>"]
    assert [turn.turn for sample in found for turn in sample.turns] == [1, 3]


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8, 23])
def test_split_turns_fills_each_sample_with_few_renderings(monkeypatch, most):
    def talk(exchanges):
        return conversation(*(one for _ in range(exchanges) for one in (user("Why?"), assistant("It rains."))))

    longest, rendered, once = size(talk(most)), [], length.render
    monkeypatch.setattr(length, "render", lambda *given: rendered.append(given) or once(*given))
    found = fitted(talk(23), longest, "split_turns")
    whole, rest = divmod(23, most)
    assert [len(sample.turns) for sample in found] == [most] * whole + [rest] * (rest > 0)
    assert len(rendered) <= 1 + len(found) * (1 + 2 * most.bit_length())


def test_split_turns_learns_only_the_last_turn_of_the_whole():
    found = fitted(LONG, size(LONG) // 2, "split_turns", learn="last")
    assert [text for sample in found for text in learned(sample)] == ["It is the number 3.<|im_end|>"]


def test_a_call_its_result_and_the_answer_stay_together():
    found = fitted(CASES["everything"], size(CASES["everything"]) - 1, "split_turns")
    assert len(found) == 2
    assert [turn.turn for sample in found for turn in sample.turns] == [1, 2, 3, 4]


def test_a_part_of_which_nothing_is_learned_is_left_out():
    answers = (assistant(tool_calls=[call()]), assistant("It rains."), assistant("Go."))
    given = conversation(*(one for answer in answers for one in (user("Why is it so? " * 4), answer)))
    found = fitted(given, 120, "split_turns", tool_calls=False)
    assert [text for sample in found for text in learned(sample)] == ["It rains.<|im_end|>", "Go.<|im_end|>"]
    assert [turn.turn for sample in found for turn in sample.turns] == [2, 3]


@given(
    st.sampled_from([*list(CASES.values()), LONG]),
    st.integers(2, 400),
    st.sampled_from(["drop", "cut_left", "cut_right", "split_turns"]),
    st.sampled_from(["chatml", "qwen", "plain"]),
)
def test_every_sample_fits_and_teaches_something(given, length, too_long, template):
    for sample in fitted(given, length, too_long, template):
        assert 2 <= len(sample.input_ids) == len(sample.labels) <= length
        assert sample.supervised == sum(label != IGNORE_INDEX for label in sample.labels[1:]) > 0
        assert all(label in (token, IGNORE_INDEX) for token, label in zip(sample.input_ids, sample.labels, strict=True))
        for turn in sample.turns:
            assert 0 <= turn.start < turn.stop <= len(sample.input_ids)
        inside = {place for turn in sample.turns for place in range(turn.start, turn.stop)}
        assert {place for place, label in enumerate(sample.labels) if label != IGNORE_INDEX} <= inside
