"""Render: the mask of every template, token by token; the ids are those of the tokenizer's own call."""

import importlib.util
import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toy_chat
from potstill.data.conversations.chat_template import template_names
from potstill.data.conversations.conversation import BadRowError
from potstill.data.conversations.render import render
from toy_chat import CASES, assistant, call, chat_tokenizer, conversation, learned, marked, settings, user

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
LLAMA_CALL = '{"name": "weather", "parameters": {"city": "Rome"}}'
OSLO = CALL.replace("Rome", "Oslo")


def rendered(case, template="chatml", **more):
    return render(CASES[case], toy_chat.template(template, **more), settings(template=template, **more))


def texts(case, template="chatml", **more):
    return [learned(sample) for sample in rendered(case, template, **more).samples]


@pytest.mark.parametrize(
    ("template", "end"),
    [("chatml", "<|im_end|>"), ("llama-3", "<|eot_id|>"), ("gemma", "<end_of_turn>"), ("plain", "<|endoftext|>")],
)
@pytest.mark.parametrize("case", ["plain", "system", "turns"])
def test_content_and_the_token_that_ends_the_turn_are_learned(template, end, case):
    answers = ["It rains.", "It snows.", "Go."] if case == "turns" else ["It rains."]
    assert texts(case, template) == [[answer + end for answer in answers]]
    assert not rendered(case, template).rewritten


@pytest.mark.parametrize(
    ("case", "template", "expected"),
    [
        ("plain", "chatml", "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n⟦It rains.<|im_end|>⟧\n"),
        (
            "system",
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
            "<|im_start|>assistant\n⟦It rains.<|im_end|>⟧\n",
        ),
        (
            "system",
            "llama-3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦It rains.<|eot_id|>⟧",
        ),
        (
            "system",
            "gemma",
            "<s><start_of_turn>user\nBe brief.\n\nWhy?<end_of_turn>\n<start_of_turn>model\n⟦It rains.<end_of_turn>⟧\n",
        ),
        (
            "plain",
            "qwen",
            "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n⟦It rains.<|im_end|>⟧\n",
        ),
        ("system", "plain", "System:\nBe brief.\n\nUser:\nWhy?\n\nAssistant:\n⟦It rains.<|endoftext|>⟧\n\n"),
    ],
)
def test_a_whole_text_is_as_it_is_written_by_hand(case, template, expected):
    (sample,) = rendered(case, template).samples
    assert marked(sample) == expected


def test_reasoning_is_learned_with_the_tags_around_it():
    first, second = ("<think>\nClouds.\n</think>\n\nIt rains.", "<think>\nCold clouds.\n</think>\n\nIt snows.")
    for template, end in (("chatml", "<|im_end|>"), ("gemma", "<end_of_turn>"), ("llama-3", "<|eot_id|>")):
        assert texts("reasoning", template) == [[first + end, second + end]]
        assert texts("reasoning", template, reasoning=False) == [["It rains." + end, "It snows." + end]]
    # Qwen drops the reasoning of earlier turns, so each turn has a sample of its own.
    assert rendered("reasoning", "qwen").rewritten
    assert texts("reasoning", "qwen") == [[first + "<|im_end|>"], [second + "<|im_end|>"]]
    assert texts("reasoning", "qwen", reasoning=False) == [["It rains.<|im_end|>"], ["It snows.<|im_end|>"]]


def test_reasoning_inside_the_content_is_reasoning():
    for text in ("<think>\nClouds.\n</think>\n\nIt rains.", "Clouds.\n</think>\n\nIt rains."):
        given = conversation(user("Why?"), assistant(text))
        for template in ("chatml", "qwen", "plain"):
            chat, chosen = toy_chat.template(template), settings(template=template)
            (sample,) = render(given, chat, chosen).samples
            assert learned(sample)[0].startswith("<think>\nClouds.\n</think>\n\nIt rains.")
            (sample,) = render(given, chat, chosen.model_copy(update={"reasoning": False})).samples
            assert learned(sample)[0].startswith("It rains.")


@pytest.mark.parametrize("kwargs", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
def test_an_empty_block_of_reasoning_is_never_learned(kwargs):
    for case in ("plain", "turns", "tools", "everything"):
        for sample in rendered(case, "qwen", template_kwargs=kwargs).samples:
            assert all("<think>\n\n</think>" not in text for text in learned(sample))


def test_a_template_that_rewrites_turns_gives_each_turn_what_a_model_reads_when_it_writes_it():
    found = rendered("turns", "qwen")
    assert found.rewritten
    assert [learned(sample) for sample in found.samples] == [
        ["It rains.<|im_end|>"],
        ["It snows.<|im_end|>"],
        ["Go.<|im_end|>"],
    ]
    chat = toy_chat.template("qwen")
    for sample, stop in zip(found.samples, (1, 3, 5), strict=True):
        before = [chat.message(one) for one in CASES["turns"].messages[:stop]]
        prompt = chat.render(before, prompt=True, enable_thinking=False)
        assert chat_tokenizer().decode(sample.input_ids[: sample.turns[0].start]) == prompt


def test_tool_calls_are_learned_or_not():
    end = "<|im_end|>"
    assert texts("tools") == [[CALL + end, "Yes, in Rome." + end]]
    assert texts("tools", "llama-3") == [[LLAMA_CALL + "<|eot_id|>", "Yes, in Rome.<|eot_id|>"]]
    assert texts("tools", tool_calls=False) == [["Yes, in Rome." + end]]
    thought = "<think>\nNo idea.\n</think>\n\n"
    first, second = f"{thought}I look.\n{CALL}{end}", f"<think>\nIt is.\n</think>\n\nYes, in Rome.{end}"
    assert texts("everything") == [[first, second, OSLO + end, "Colder." + end]]
    assert texts("everything", tool_calls=False) == [[f"{thought}I look.", second, "Colder." + end]]
    neither = [["I look.", "Yes, in Rome." + end, "Colder." + end]]
    assert texts("everything", tool_calls=False, reasoning=False) == neither


def test_calls_after_reasoning_alone_are_parted_from_it():
    given = conversation(user("Cold?"), assistant(reasoning_content="Hm.", tool_calls=[call()]), tools=toy_chat.TOOLS)
    for template in ("chatml", "qwen"):
        chat = toy_chat.template(template)
        (sample,) = render(given, chat, settings(template=template, reasoning=False)).samples
        assert learned(sample) == [CALL + "<|im_end|>"]
        (sample,) = render(given, chat, settings(template=template, tool_calls=False)).samples
        assert learned(sample)[0].strip() == "<think>\nHm.\n</think>"


def test_a_call_that_stands_in_the_content_is_a_call():
    given = conversation(user("Cold?"), assistant(f"I look.\n{CALL}"), toy_chat.result(), assistant("Yes."))
    (sample,) = render(given, toy_chat.template(), settings(tool_calls=False)).samples
    assert learned(sample) == ["I look.\n", "Yes.<|im_end|>"]


def test_only_the_last_turn_or_only_turns_with_a_weight():
    assert texts("turns", learn="last") == [["Go.<|im_end|>"]]
    given = conversation(user("Why?"), assistant("It rains.", weight=0), user("So?"), assistant("Go.", weight=1))
    (sample,) = render(given, toy_chat.template(), settings()).samples
    assert learned(sample) == ["Go.<|im_end|>"]
    assert [turn.turn for turn in sample.turns] == [2]
    with pytest.raises(BadRowError, match="no turn that is learned"):
        render(conversation(user("Why?"), assistant("No.", train=False)), toy_chat.template(), settings())


def test_what_follows_the_last_answer_is_left_out():
    given = conversation(user("Why?"), assistant("It rains."), user("And now?"))
    (sample,) = render(given, toy_chat.template(), settings()).samples
    assert marked(sample).endswith("⟦It rains.<|im_end|>⟧\n")


def test_the_place_of_a_turn_is_where_its_prompt_ends():
    (sample,) = rendered("turns").samples
    for turn in sample.turns:
        assert marked(sample)  # the sample is whole
        assert chat_tokenizer().decode(sample.input_ids[: turn.start]).endswith("<|im_start|>assistant\n")
        assert sample.input_ids[turn.stop - 1] == chat_tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert [turn.turn for turn in sample.turns] == [1, 2, 3]


@pytest.mark.parametrize("template", template_names())
@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_the_tokenizers_own_call(template, case):
    if template == "gemma" and case in ("tools", "everything"):
        with pytest.raises(BadRowError, match=r"chats.jsonl:7: .*no place for tools"):
            rendered(case, template)
        return
    chat, given = toy_chat.template(template), CASES[case]
    found = rendered(case, template)
    ends = [number + 1 for number, message in enumerate(given.messages) if message.role == "assistant"]
    for sample, stop in zip(found.samples, ends if found.rewritten else ends[-1:], strict=True):
        messages = [chat.message(message) for message in given.messages[:stop]]
        tools = list(given.tools) or None
        whole = chat_tokenizer().apply_chat_template(messages, tools=tools, chat_template=chat.text)
        assert sample.input_ids == whole["input_ids"]
        assert sample.input_ids.count(chat_tokenizer().bos_token_id) == (template in ("gemma", "llama-3"))


NAMES = ["chatml", "llama-3", "gemma", "plain", "qwen"]
RESERVED = {"think>", "<|", *(token for name in NAMES for token in toy_chat.template(name).control_tokens)}
words = st.text(string.ascii_letters + string.digits + " .,:;?!<>|/{}\"'\n😀é漢\u00a0", min_size=1, max_size=30)
texts_to_say = words.map(str.strip).filter(lambda text: text and not any(one in text for one in RESERVED))


@given(
    st.lists(st.tuples(texts_to_say, texts_to_say), min_size=1, max_size=3),
    st.sampled_from(NAMES),
)
def test_whatever_is_said_the_contents_and_their_ends_are_learned(turns, name):
    given = conversation(*(one for asked, told in turns for one in (user(asked), assistant(told))))
    chat = toy_chat.template(name)
    found = render(given, chat, settings(template=name))
    tokenizer = chat_tokenizer()
    told = [f"{answer}{chat.end_token}" for _, answer in turns]
    decoded = [
        tokenizer.decode([label for label in sample.labels[turn.start : turn.stop] if label >= 0])
        for sample in found.samples
        for turn in sample.turns
    ]
    assert decoded == told
    for sample in found.samples:
        inside = {place for turn in sample.turns for place in range(turn.start, turn.stop)}
        assert {place for place, label in enumerate(sample.labels) if label >= 0} == inside


TRL = importlib.util.find_spec("trl")
REAL = sorted(Path(TRL.origin).parent.glob("chat_templates/*.jinja")) if TRL and TRL.origin else []
ENDS = {
    "qwen": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "phi3": "<|end|>",
    "gptoss": "<|return|>",
}
KNOWN = [(file, end) for file in REAL for name, end in ENDS.items() if file.stem.startswith(name)]


@pytest.mark.parametrize(
    ("file", "end"),
    [one for one in KNOWN if "_training" not in one[0].stem and "gemma4" not in one[0].stem],
    ids=lambda one: getattr(one, "stem", ""),
)
def test_templates_of_real_models_need_no_tags(file, end):
    chat, chosen = toy_chat.template(str(file)), settings(template=str(file))
    found = render(CASES["turns"], chat, chosen)
    spoken = [text for sample in found.samples for text in learned(sample)]
    # gpt-oss writes the name of its channel itself.
    assert [text.removeprefix("<|channel|>final<|message|>") for text in spoken] == [
        answer + end for answer in ("It rains.", "It snows.", "Go.")
    ]


@pytest.mark.parametrize("name", NAMES)
def test_each_token_that_a_template_writes_is_refused_in_a_text(name):
    chat = toy_chat.template(name)
    for token in chat.control_tokens:
        with pytest.raises(BadRowError, match=f"holds {re.escape(repr(token))}"):
            render(conversation(user("Why?"), assistant(f"It {token} rains.")), chat, settings(template=name))


def test_a_text_that_holds_a_token_of_the_template_is_refused():
    for role in ("user", "assistant"):
        said = {"user": "Why?", "assistant": "It rains."} | {role: "Stop<|im_end|>\n<|im_start|>user\nNow."}
        given = conversation(user(said["user"]), assistant(said["assistant"]))
        with pytest.raises(BadRowError, match=rf"chats.jsonl:7: a turn of the {role} holds '<\|im_"):
            render(given, toy_chat.template(), settings())
        # A template that writes no such token has nothing against it.
        assert render(given, toy_chat.template("plain"), settings(template="plain")).samples


def test_a_template_that_changes_an_answer_is_refused(tmp_path):
    file = tmp_path / "loud.jinja"
    file.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | upper }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(BadRowError, match="changes the text of a turn of the assistant"):
        render(CASES["plain"], toy_chat.template(str(file)), settings(template=str(file)))


def test_a_template_that_never_writes_the_next_header_is_understood(tmp_path):
    file = tmp_path / "old.jinja"
    file.write_text("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")
    (sample,) = render(CASES["turns"], toy_chat.template(str(file)), settings(template=str(file))).samples
    assert learned(sample) == ["It rains.<|im_end|>", "It snows.<|im_end|>", "Go.<|im_end|>"]


def test_a_template_that_ends_the_whole_text_with_a_token_of_its_own_teaches_the_turns_own_end(tmp_path):
    file = tmp_path / "phi.jinja"
    file.write_text(
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
    )
    (sample,) = render(CASES["turns"], toy_chat.template(str(file)), settings(template=str(file))).samples
    assert learned(sample) == ["It rains.<|end|>", "It snows.<|end|>", "Go.<|end|>"]
