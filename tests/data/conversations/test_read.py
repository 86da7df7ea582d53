"""Read: every format gives the same conversation; what is no conversation is refused by its row."""

import json
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

import toy_chat
from potstill.data.conversations.conversation import BadRowError
from potstill.data.conversations.read import conversations_of, conversations_of_rows
from potstill.recipe.conversations import PathConversations
from toy_chat import TOOLS, WEATHER, assistant, call, read, result, user

SYSTEM = {"role": "system", "content": "Be brief."}
CHAT = [SYSTEM, user("Why?"), assistant("It rains."), user("And now?"), assistant("It snows.")]
SHAREGPT = [
    {"from": {"user": "human", "assistant": "gpt"}.get(one["role"], one["role"]), "value": one["content"]}
    for one in CHAT
]
PARTS = [one | {"content": [{"type": "text", "text": one["content"]}]} for one in CHAT]
VALUES = [one | {"content": [{"type": "text", "value": one["content"]}]} for one in CHAT]


def same(conversation, messages=CHAT):
    return conversation.messages == read({"messages": messages}).messages


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"messages": PARTS},
        {"messages": VALUES},
        {"messages": json.dumps(CHAT)},
        {"messages": CHAT[1:], "system": "Be brief."},
        {"conversations": CHAT},
        {"conversations": SHAREGPT},
        {"conversations": SHAREGPT[1:], "system": "Be brief."},
        {"conversations": SHAREGPT, "system": None, "tools": "[]", "images": []},
        {"prompt": CHAT[:-1], "completion": CHAT[-1:]},
        {"prompt": CHAT[:-1], "completion": "It snows."},
        {
            "instruction": "And now?",
            "input": "",
            "output": "It snows.",
            "system": "Be brief.",
            "history": [["Why?", "It rains."]],
        },
        {"messages": [one | {"name": None, "tool_calls": None, "weight": None} for one in CHAT]},
        {"messages": [one | {"role": one["role"].title()} for one in CHAT]},
        {"messages": {key: [one[key] for one in CHAT] for key in ("role", "content")}},
        {"conversations": {key: [one[key] for one in SHAREGPT] for key in ("from", "value")}},
        {"messages": [one | {"reasoning_content": " "} for one in CHAT]},
    ],
)
def test_formats_are_recognised_and_say_the_same(row):
    assert same(read(row))


def test_a_prompt_and_its_completion_are_one_exchange():
    assert same(read({"prompt": "Why?", "completion": "It rains."}), CHAT[1:3])


def test_alpacas_input_follows_its_instruction():
    found = read({"instruction": "Translate.", "input": "Regen", "output": "Rain"})
    assert [one.content for one in found.messages] == ["Translate.\nRegen", "Rain"]
    found = read({"instruction": "Translate.", "input": " ", "output": "Rain"})
    assert found.messages[0].content == "Translate."


def test_columns_keys_and_roles_may_have_other_names():
    turns = [{"speaker": "caller", "text": "Why?"}, {"speaker": "agent", "text": "It rains."}]
    names = {
        "format": "sharegpt",
        "keys": {"conversations": "dialog", "from": "speaker", "value": "text"},
        "roles": {"caller": "user", "agent": "assistant"},
    }
    assert same(read({"dialog": turns}, **names), CHAT[1:3])
    names = {"format": "alpaca", "keys": {"instruction": "q", "output": "a"}}
    assert same(read({"q": "Why?", "a": "It rains."}, **names), CHAT[1:3])
    names = {"format": "prompt_completion", "keys": {"prompt": "q", "completion": "a"}}
    assert same(read({"q": "Why?", "a": "It rains."}, **names), CHAT[1:3])


def test_every_way_to_write_a_tool_call_is_the_same():
    arguments = {"city": "Rome"}
    calls = [
        assistant(tool_calls=[call()]),
        assistant(content=None, tool_calls=[{"name": "weather", "arguments": json.dumps(arguments)}]),
        assistant(tool_calls=json.dumps([call()])),
        assistant(function_call={"name": "weather", "arguments": json.dumps(arguments)}),
        {"role": "assistant", "content": [{"type": "tool_call", "value": json.dumps(call()["function"])}]},
    ]
    for one in calls:
        found = read({"messages": [user("Cold?"), one, result(), assistant("Yes.")], "tools": TOOLS})
        (made,) = found.messages[1].tool_calls
        assert (made.name, made.arguments) == ("weather", arguments)
    turns = [
        {"from": "human", "value": "Cold?"},
        {"from": "function_call", "value": json.dumps(call()["function"])},
        {"from": "observation", "value": "3 degrees"},
        {"from": "gpt", "value": "Yes."},
    ]
    for tools in (TOOLS, [WEATHER], WEATHER, json.dumps(TOOLS), json.dumps([WEATHER]), [json.dumps(WEATHER)]):
        found = read({"conversations": turns, "tools": tools})
        assert found.messages[1].tool_calls[0] == made
        assert list(found.tools) == TOOLS


def test_a_call_after_the_assistants_words_belongs_to_them():
    said = {"from": "gpt", "value": "I look."}
    asked = {"from": "function_call", "value": json.dumps(call()["function"])}
    other = {"from": "function_call", "value": json.dumps(call("Oslo")["function"])}
    seen = {"from": "observation", "value": "3"}
    last = {"from": "gpt", "value": "Yes."}
    found = read({"conversations": [{"from": "human", "value": "Cold?"}, said, asked, other, seen, seen, last]})
    assert [one.role for one in found.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert found.messages[1].content == "I look."
    assert [one.arguments["city"] for one in found.messages[1].tool_calls] == ["Rome", "Oslo"]


@pytest.mark.parametrize(
    "answer",
    [
        assistant("It rains.", reasoning_content="Clouds."),
        assistant("It rains.", thinking="Clouds."),
        assistant("It rains.", reasoning="Clouds."),
        {
            "role": "assistant",
            "content": [{"type": "reasoning", "value": "Clouds."}, {"type": "text", "value": "It rains."}],
        },
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Clouds."}, {"type": "text", "text": "It rains."}],
        },
        assistant("<think>\nClouds.\n</think>\n\nIt rains."),
        assistant("Clouds.</think>It rains."),
    ],
)
def test_reasoning_is_told_from_the_answer(answer):
    found = read({"messages": [user("Why?"), answer]}).messages[1]
    assert (found.reasoning.strip(), found.content.strip()) == ("Clouds.", "It rains.")


def test_an_empty_thought_is_none():
    found = read({"messages": [user("Why?"), assistant("<think>\n\n</think>\n\nIt rains.")]}).messages[1]
    assert (found.reasoning, found.content.strip()) == ("", "It rains.")


@pytest.mark.parametrize(
    ("key", "value", "learn"),
    [
        ("weight", 0, False),
        ("loss_weight", 0.0, False),
        ("train", False, False),
        ("loss", True, True),
        ("weight", 1.0, True),
    ],
)
def test_a_turn_may_say_whether_it_is_learned(key, value, learn):
    found = read({"messages": [user("Why?") | {key: value}, assistant("It rains.", **{key: value})]})
    assert found.messages[1].learn == learn


def test_a_table_writes_every_key_in_every_object(tmp_path):
    other = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    turns = [
        user("Cold?"),
        assistant(tool_calls=[call(), {"function": {"name": "clock", "arguments": {"zone": "CET"}}}]),
    ]
    rows = [{"messages": [*turns, result(), assistant("Yes.")], "tools": [*TOOLS, other]}]
    file = tmp_path / "chats.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    (found,) = conversations_of([PathConversations(path=str(file))], "corpus.conversations")
    assert [one.arguments for one in found.messages[1].tool_calls] == [{"city": "Rome"}, {"zone": "CET"}]
    assert found.tools[0] == TOOLS[0]
    assert "required" not in found.tools[1]["function"]["parameters"]


def test_the_rows_of_a_data_set_are_conversations():
    turns = [user("Cold?"), assistant(tool_calls=[call()]), result(), assistant("Yes.")]
    plain = [user("Why?"), assistant("It rains.")]
    rows = Dataset.from_list([{"messages": turns, "tools": json.dumps(TOOLS)}, {"messages": plain, "tools": None}])
    found = list(conversations_of_rows(rows, "train_dataset"))
    assert [one.where for one in found] == ["train_dataset:1", "train_dataset:2"]
    assert found[0].messages == read({"messages": turns}).messages
    assert found[1].messages == read({"messages": plain}).messages
    with pytest.raises(BadRowError, match=r"^train_dataset:1: has no turn of the assistant"):
        list(conversations_of_rows([{"messages": [user("Why?")]}], "train_dataset"))


def test_a_null_of_json_stays():
    answer = assistant(tool_calls=[{"function": {"name": "weather", "arguments": {"city": None}}}])
    found = read({"messages": [user("Cold?"), answer, result(), assistant("Yes.")], "tools": TOOLS})
    assert found.messages[1].tool_calls[0].arguments == {"city": None}


@pytest.mark.parametrize("case", toy_chat.CASES)
def test_a_conversation_is_read_back_as_it_was(case):
    given = toy_chat.CASES[case]
    back = read(given.as_row())
    assert (back.messages, back.tools) == (given.messages, given.tools)
    assert back.hash() == given.hash()


def test_reasoning_inside_the_content_is_read_back_as_it_was():
    given = read({"messages": [user("Why?"), assistant("<think>\n Clouds.</think>\n\n It rains.", weight=0)]})
    assert read(given.as_row()).messages == given.messages


CHATS = {"role": "assistant", "content": "Hi."}
BAD = {
    "no columns": ({}, "holds no conversation that is recognised"),
    "other columns": ({"text": "Hi."}, r"its columns are text; `format` and `keys` name others"),
    "no list": ({"messages": 3}, "its messages are no list"),
    "no messages": ({"messages": []}, "has no turns"),
    "broken json": ({"messages": "[{"}, "cannot be read as JSON"),
    "a text as message": ({"messages": ["Hi."]}, "its messages are no list of objects"),
    "no role": ({"messages": [{"role": None, "content": "Hi."}]}, "a message has no `role`|a message has no `from`"),
    "unknown role": (
        {"messages": [user("Why?"), {"role": "narrator", "content": "x"}]},
        "the role 'narrator' is unknown",
    ),
    "only a user": ({"messages": [user("Why?")]}, "has no turn of the assistant"),
    "only an answer": ({"messages": [CHATS]}, "begins with a turn of the assistant"),
    "answer first": ({"messages": [SYSTEM, CHATS, user("Why?"), CHATS]}, "begins with a turn of the assistant"),
    "two users": ({"messages": [user("Why?"), user("Why?"), CHATS]}, "turns 1 and 2 are both of the user"),
    "two answers": ({"messages": [user("Why?"), CHATS, CHATS]}, "turns 2 and 3 are both of the assistant"),
    "result alone": (
        {"messages": [user("Why?"), result(), CHATS]},
        "turn 2 is a tool's result, but no tool was called",
    ),
    "result after words": ({"messages": [user("Why?"), CHATS, result()]}, "turn 3 is a tool's result"),
    "another call's result": (
        {"messages": [user("a"), assistant(tool_calls=[call(id="1")]), result() | {"tool_call_id": "2"}, CHATS]},
        "turn 3 is a tool's result",
    ),
    "tools are no JSON": ({"messages": [user("Why?"), CHATS], "tools": "[{"}, r"`tools` cannot be read as JSON"),
    "tools are words": ({"messages": [user("Why?"), CHATS], "tools": ["weather"]}, "a tool cannot be read as JSON"),
    "tools are numbers": ({"messages": [user("Why?"), CHATS], "tools": "[3]"}, "no object with a `name`"),
    "arguments are no JSON": (
        {"messages": [user("a"), assistant(tool_calls=[{"name": "f", "arguments": "{'a': 1}"}])]},
        "the arguments of 'f' cannot be read as JSON",
    ),
    "arguments are a list": (
        {"messages": [user("a"), assistant(tool_calls=[{"name": "f", "arguments": [1]}])]},
        "no obj",
    ),
    "a call without name": ({"messages": [user("a"), assistant(tool_calls=[{"arguments": {}}])]}, "has no `name`"),
    "a call that is a number": ({"messages": [user("a"), assistant(tool_calls=[3])]}, "a tool call is no object"),
    "calls that are a number": ({"messages": [user("a"), assistant(tool_calls=3)]}, "a tool call is no object"),
    "empty question": ({"messages": [user(" \n"), CHATS]}, "turn 1, of the user, is empty"),
    "empty answer": ({"messages": [user("Why?"), assistant("")]}, "turn 2, of the assistant, is empty"),
    "empty thought": (
        {"messages": [user("Why?"), assistant("<think></think> ")]},
        "turn 2, of the assistant, is empty",
    ),
    "no content": ({"messages": [user("Why?"), assistant(content=None)]}, "turn 2, of the assistant, is empty"),
    "a number as content": ({"messages": [user(3), CHATS]}, "neither a text nor a list of parts"),
    "a picture": (
        {"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}]), CHATS]},
        "a part of the type 'image_url', and only texts and tool calls are supported",
    ),
    "a picture beside": (
        {"messages": [user("<image>Who?"), CHATS], "images": ["x.png"]},
        "has `images`, and only text",
    ),
    "a sound": (
        {"messages": [user([{"type": "input_audio", "input_audio": {}}]), CHATS]},
        "'input_audio', and only texts",
    ),
    "a part without type": ({"messages": [user([{"text": "a"}]), CHATS]}, "a part of a message has no `type`"),
    "a part that is a number": ({"messages": [user([3]), CHATS]}, "a part of a message has no `type`"),
    "a part without text": ({"messages": [user([{"type": "text"}]), CHATS]}, "a part of the type 'text' holds no text"),
    "half a weight": ({"messages": [user("Why?"), assistant("Hi.", weight=0.5)]}, "has the weight 0.5"),
    "a word as weight": ({"messages": [user("Why?"), assistant("Hi.", weight="no")]}, "has the weight 'no'"),
    "sharegpt's answer first": (
        {"conversations": [{"from": "gpt", "value": "Hi."}]},
        "begins with a turn of the assis",
    ),
    "alpaca without output": ({"instruction": "Why?", "output": None}, "holds no conversation"),
    "alpaca with a number": ({"instruction": "Why?", "output": 3}, "`output` is 3, not text"),
    "alpaca's blank output": ({"instruction": "Why?", "output": " "}, "turn 2, of the assistant, is empty"),
    "alpaca's history": ({"instruction": "a", "output": "b", "history": [["c"]]}, "`history` is no list of pairs"),
    "completion is a number": ({"prompt": "Why?", "completion": 3}, "its messages are no list"),
    "preferences": ({"prompt": "Why?", "chosen": "a", "rejected": "b"}, "holds no conversation that is recognised"),
}


@pytest.mark.parametrize(("row", "why"), BAD.values(), ids=BAD)
def test_a_row_that_is_no_conversation_is_refused_in_one_sentence(row, why):
    with pytest.raises(BadRowError, match=why) as caught:
        read(row)
    message = str(caught.value)
    assert message.startswith("chats.jsonl:7: ")
    assert "corpus.on_bad_row: drop" in message
    assert "\n" not in message
    assert "chats.jsonl" not in caught.value.reason


def test_bad_rows_are_counted_where_one_must_not_stop_a_thousand(tmp_path):
    file = tmp_path / "chats.jsonl"
    rows = [{"messages": [user("Why?"), CHATS]}, *(row for row, _ in BAD.values())]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source, dropped = PathConversations(path=str(file)), []
    kept = list(
        conversations_of([source], "corpus.conversations", lambda row, reason: dropped.append((row.where, reason)))
    )
    assert [one.where for one in kept] == ["chats.jsonl:1"]
    assert [where for where, _ in dropped] == [f"chats.jsonl:{number}" for number in range(2, len(rows) + 1)]
    with pytest.raises(BadRowError, match=r"chats\.jsonl:2: "):
        list(conversations_of([source], "corpus.conversations"))


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(allow_nan=False)
    | st.text('ab{["<think>/ \n', max_size=9)
)
names = [
    "role",
    "content",
    "from",
    "value",
    "tool_calls",
    "tools",
    "function",
    "name",
    "arguments",
    "type",
    "text",
    "weight",
]
names += ["messages", "conversations", "instruction", "output", "history", "prompt", "completion", "system", "images"]
words = st.sampled_from(
    ["user", "assistant", "tool", "system", "gpt", "human", "function_call", "text", "reasoning", "[]"]
)
values = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(names), inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(names), values, max_size=6))
def test_any_row_is_a_conversation_or_refused(row):
    # Any other error would fail the test.
    with suppress(BadRowError):
        assert any(message.role == "assistant" for message in read(row).messages)
