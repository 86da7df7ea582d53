"""Tool calls: those of every template are found, and one that the tools do not take is not valid."""

import json

import pytest

from potstill.metrics.conversations.tool_calls import calls_in, valid_calls

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "day": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY}},
    {"name": "time"},
]
CALL = {"name": "weather", "arguments": {"city": "Rome"}}


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>",
        f"I look.\n<tool_call>\n{json.dumps(CALL)}\n</tool_call>\n<tool_call>{json.dumps(CALL)}</tool_call>",
        '{"name": "weather", "parameters": {"city": "Rome"}}',
        f"[TOOL_CALLS][{json.dumps(CALL)}]",
        json.dumps({"type": "function", "function": CALL}),
        json.dumps({"name": "weather", "arguments": json.dumps({"city": "Rome", "day": "today"})}),
        '{"name": "time", "arguments": {}}',
        "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n</tool_call>",
        '<function=weather><parameter=city>{"name": 1}</parameter><parameter=day>today</parameter></function>',
        f"A set {{1, 2}} and [a list] come first: {json.dumps(CALL)}",
    ],
)
def test_a_call_that_the_tools_take_is_valid(text):
    assert valid_calls(text, TOOLS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It is cold in Rome.",
        '{"name": "weather", "arguments": {"day": "today"}}',
        '{"name": "stocks", "arguments": {"city": "Rome"}}',
        '{"name": "weather", "arguments": "Rome"}',
        '{"name": "weather", "arguments": ["Rome"]}',
        '{"name": "weather"}',
        "<function=weather><parameter=day>today</parameter></function>",
        "<function=stocks><parameter=city>Rome</parameter></function>",
        "<tool_call><function=weather><parameter=city>Rome</parameter></tool_call>",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}',
        f'<tool_call>{json.dumps(CALL)}</tool_call><tool_call>{{"name": weather}}</tool_call>',
        f'{json.dumps(CALL)} {{"name": "stocks", "arguments": {{}}}}',
        # Deeper than Python's parser of JSON goes.
        "[" * 5_000,
        '{"a":' * 5_000,
    ],
)
def test_a_call_that_cannot_be_made_is_not_valid(text):
    assert not valid_calls(text, TOOLS)


def test_calls_have_their_arguments():
    (call,) = calls_in(f"so: {json.dumps(CALL)}.")
    assert (call.name, call.arguments) == ("weather", {"city": "Rome"})
    (call,) = calls_in("<function=weather>\n<parameter=city>\nNew\nRome\n</parameter>\n</function>")
    assert (call.name, call.arguments) == ("weather", {"city": "New\nRome"})


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "[1,",
        "[{]",
        "{",
        '{"a":',
        "{ ",
        "<function=a>",
        "<function=",
        "<parameter=a>",
        "<function=a><parameter=b> ",
    ],
)
def test_a_model_that_repeats_itself_is_read_in_no_time(piece):
    good = json.dumps(CALL)
    # A text of this length would take minutes, if each beginning were read to the end.
    calls = list(calls_in(good + piece * 20_000))
    assert [call.name for call in calls] == ["weather"]
