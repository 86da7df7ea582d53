"""Windows: in long conversations, turns are found as in short ones, and no message is rendered again and again."""

import pytest

import toy_chat
from potstill.data.conversations import windows
from potstill.data.conversations.chat_template import ChatTemplate
from potstill.data.conversations.render import render
from refusals import Refused, unless_refused
from toy_chat import TOOLS, assistant, call, conversation, result, settings, user

TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
ODD = {
    "what is old is cut": "{% for m in messages %}{% set c = m.content[:2] if loop.revindex > 9 else m.content %}"
    "<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n{% endfor %}" + PROMPT,
    "what is old and not the assistant's is cut": "{% for m in messages %}"
    "{% set c = m.content[:2] if loop.revindex > 9 and m.role == 'user' else m.content %}"
    "<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n{% endfor %}" + PROMPT,
    "turns have numbers": "{% for m in messages %}{{ loop.index }}. " + TURN + "{% endfor %}" + PROMPT,
    "the prompt of a long conversation says more": "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ '\n' if loop.index > 12 and m.role == 'assistant' }}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '\n' if messages | length > 11 }}{% endif %}",
    "a long conversation is refused": "{% if messages | length > 50 %}{{ raise_exception('too long') }}{% endif %}"
    "{% for m in messages %}" + TURN + "{% endfor %}" + PROMPT,
    "only a long conversation is allowed": "{% if messages | length > 2 and messages | length < 8 %}"
    "{{ raise_exception('too short') }}{% endif %}{% for m in messages %}" + TURN + "{% endfor %}" + PROMPT,
}


def talk(turns, **more):
    """A conversation whose turns differ, with a system prompt."""
    said = [message for turn in range(turns) for message in (user(f"Why {turn}?"), assistant(f"It is {turn}.", **more))]
    return conversation({"role": "system", "content": "Be brief."}, *said)


def trace(calls):
    """One question, and then calls of a tool, one after the other."""
    called = [message for at in range(calls) for message in (assistant(tool_calls=[call(f"T{at}")]), result(f"{at}."))]
    return conversation(user("Where is it cold?"), *called, assistant("Nowhere."), tools=TOOLS)


def some_unlearned():
    said = [
        message
        for at in range(40)
        for message in (user(f"Why {at}?"), assistant(f"It is {at}.", weight=int(at % 3 > 0)))
    ]
    return conversation(*said, user("So?"), assistant("Go."), user("And?"))


LONG = {
    "talk": talk(25),
    "thoughtful": talk(25, reasoning_content="Clouds."),
    "trace": trace(25),
    "some of it": some_unlearned(),
}


@pytest.fixture
def both(monkeypatch):
    """The samples, or the refusal, of a conversation: with windows, and without."""

    def rendered(case, template, chosen):
        found = []
        for many in (windows.MANY, 10**9):
            monkeypatch.setattr(windows, "MANY", many)
            found.append(unless_refused(lambda: render(case, template, chosen)))
        return found

    return rendered


@pytest.mark.parametrize("case", LONG)
@pytest.mark.parametrize("template", ["chatml", "llama-3", "gemma", "qwen", "plain"])
def test_windows_change_no_sample(both, case, template):
    chosen = settings(template=template, sequence_length=2**15)
    fast, slow = both(LONG[case], toy_chat.template(template), chosen)
    assert fast == slow


@pytest.mark.parametrize("more", [{"reasoning": False}, {"tool_calls": False}])
def test_windows_find_the_parts_that_are_not_learned(both, more):
    for case in (LONG["thoughtful"], LONG["trace"]):
        fast, slow = both(case, toy_chat.template("qwen"), settings(template="qwen", **more))
        assert fast == slow


@pytest.mark.parametrize("odd", ODD)
def test_a_template_that_looks_back_is_rendered_as_a_whole(both, tmp_path, odd):
    file = tmp_path / "odd.jinja"
    file.write_text(ODD[odd])
    fast, slow = both(talk(30), toy_chat.template(str(file)), settings(template=str(file)))
    assert fast == slow
    assert isinstance(fast, Refused) == odd.startswith(("a long", "only")), "its case is tried"


@pytest.mark.parametrize("make", [talk, trace])
def test_twice_the_turns_are_twice_the_messages_to_render(monkeypatch, make):
    counts = []
    render_once = ChatTemplate.render

    def counting(self, messages, *given, **more):
        counts[-1] += len(messages)
        return render_once(self, messages, *given, **more)

    template = toy_chat.template("chatml")
    monkeypatch.setattr(ChatTemplate, "render", counting)
    for turns in (64, 128):
        counts.append(0)
        render(make(turns), template, settings(sequence_length=2**15))
    assert counts[1] < 2.2 * counts[0]
