"""A teacher's turns: what it is asked, what of its answers is kept, and what becomes of the rest."""

from collections import Counter

import pytest

import toy_chat
from potstill.generation.generate import Response
from potstill.generation.teacher_turns import TurnWriter, WrittenTurn
from potstill.recipe.generate import Generate
from toy_chat import CASES, chat_tokenizer

DRAWN = {"samples": 2, "temperature": 1.0}


class Teacher:
    """Answers with the texts that it is given, in turn; and notes the prompts."""

    def __init__(self, *texts):
        self.texts, self.prompts, self.rounds = list(texts), [], []

    def __call__(self, requests, several):
        self.rounds.append((len(requests), several))
        found = []
        for request in requests:
            self.prompts.append(chat_tokenizer().decode(request.prompt_ids))
            for sample in range(several):
                text = self.texts.pop(0)
                found.append(Response(request.id, sample, text.removesuffix("…"), len(text), text.endswith("…")))
        # They come as they end.
        return found[::-1]


def written(teacher, *cases, room=1000, template="chatml", **given):
    writer = TurnWriter(Generate(by="t", **given), toy_chat.template(template), room, teacher)
    return writer.write({case: CASES[case] for case in cases}), writer.counts


def contents(draft):
    return [message.content for message in draft.conversation.messages if message.role == "assistant"]


def test_the_last_turn_is_written_after_the_data_s_own():
    teacher = Teacher("Stay.")
    (draft,), counts = written(teacher, "turns")
    assert contents(draft) == ["It rains.", "It snows.", "Stay."]
    assert draft.written == (WrittenTurn(5, 0, 5),)
    assert "It snows.<|im_end|>" in teacher.prompts[0]
    assert teacher.prompts[0].endswith("<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n")
    assert (counts.kept, counts.turns, counts.responses) == (1, 1, 1)


def test_each_turn_is_written_after_those_that_it_wrote_before():
    teacher = Teacher("Sun.", "Fog.", "Moon.", "Stay.")
    drafts, counts = written(teacher, "turns", "plain", turns="each")
    assert [contents(draft) for draft in drafts] == [["Sun.", "Moon.", "Stay."], ["Fog."]]
    assert teacher.rounds == [(2, 1), (1, 1), (1, 1)]
    assert "Moon." in teacher.prompts[3]
    assert "It rains." not in "".join(teacher.prompts)
    assert counts.turns == 4


def test_several_samples_become_several_conversations_that_go_on_each_for_itself():
    teacher = Teacher("Sun.", "Fog.", "Moon.", "Mist.", "Stay.", "Go.")
    drafts, counts = written(teacher, "turns", turns="each", **DRAWN)
    assert [contents(draft) for draft in drafts] == [["Sun.", "Moon.", "Stay."], ["Fog.", "Mist.", "Go."]]
    assert [draft.id for draft in drafts] == ["turns#0", "turns#1"]
    assert teacher.rounds == [(1, 2), (2, 1), (2, 1)]
    same, counts = written(Teacher("Sun.", "Sun. "), "plain", **DRAWN)
    assert (len(same), counts.repeated) == (1, 1)


def test_the_nearest_sample_of_each_turn_goes_on():
    teacher = Teacher("Sun.", "Now it rains.", "Snow.", "It snows so.", "Go!", "No.")
    (draft,), _ = written(teacher, "turns", turns="each", keep="nearest", **DRAWN)
    assert contents(draft) == ["Now it rains.", "It snows so.", "Go!"]
    assert teacher.rounds == [(1, 2)] * 3
    assert [turn.sample for turn in draft.written] == [1, 1, 0]


def test_turns_that_call_tools_stay_as_they_are_and_are_counted():
    teacher = Teacher("Rather.", "Warmer.")
    (draft,), counts = written(teacher, "everything", turns="each", template="qwen")
    assert contents(draft)[1::2] == ["Rather.", "Warmer."]
    before = CASES["everything"].messages
    assert [after for after in draft.conversation.messages if after.calls] == [one for one in before if one.calls]
    assert counts.turns_with_calls == 2
    assert "turns that call tools are as in the data" in str(counts)


def test_a_conversation_that_ends_with_a_call_stays_as_it_is():
    asked, called = toy_chat.user("Is it cold?"), toy_chat.assistant(tool_calls=[toy_chat.call()])
    ends_with_call = toy_chat.conversation(asked, called, tools=toy_chat.TOOLS)
    writer = TurnWriter(Generate(by="t"), toy_chat.template("qwen"), 1000, Teacher())
    (draft,) = writer.write({"tools": ends_with_call})
    assert draft.conversation == ends_with_call
    assert (writer.counts.as_they_are, writer.counts.turns) == (1, 0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Sun…", "did not end within `max_new_tokens`"),
        (" ", "is blank"),
        ("<think>\nClouds.\n</think>\n", "is blank"),
        ("So.", "does not match `matching`"),
        ('<tool_call>\n{"name": "It"}\n</tool_call>', "calls a tool where the data does not"),
        ("It <|im_start|>", "holds a special token of the chat template"),
    ],
)
def test_a_conversation_ends_before_a_turn_that_may_not_be_learned(answer, reason):
    given = {"turns": "each", "matching": "It|Clouds|^ $"}
    (draft,), counts = written(Teacher("It is.", answer), "turns", **given)
    assert contents(draft) == ["It is."]
    assert (counts.shortened, counts.dropped, counts.refused) == (1, Counter(), Counter([reason]))
    none, counts = written(Teacher(answer), "plain", **given)
    assert none == []
    assert counts.dropped == Counter(["no answer of the teacher may be learned"])


def test_a_prompt_that_leaves_no_room_is_not_asked():
    teacher = Teacher("So.")
    drafts, counts = written(teacher, "plain", "everything", room=60, template="qwen")
    assert [draft.id for draft in drafts] == ["plain"]
    assert counts.dropped == Counter(["leaves no room for an answer"])
    assert teacher.rounds == [(1, 1)]


def test_what_is_thought_is_no_part_of_the_content():
    (draft,), _ = written(Teacher("<think>\nClouds.\n</think>\n\nRain."), "plain")
    message = draft.conversation.messages[-1]
    assert (message.reasoning.strip(), message.content.strip()) == ("Clouds.", "Rain.")


def test_a_turn_that_the_data_does_not_teach_is_written_and_not_taught():
    case = toy_chat.conversation(
        *(toy_chat.user("Why?"), toy_chat.assistant("It rains.", weight=0)),
        *(toy_chat.user("So?"), toy_chat.assistant("Go.")),
    )
    writer = TurnWriter(Generate(by="t", turns="each"), toy_chat.template("chatml"), 1000, Teacher("Sun.", "Stay."))
    (draft,) = writer.write({"one": case})
    assert [message.learn for message in draft.conversation.messages if message.role == "assistant"] == [False, True]
