"""Tool calls: finds the calls in a text that a model wrote, and whether its tools take them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from potstill.data.conversations.conversation import TOOL_CALL_TAG, ToolCall

Tool = Mapping[str, Any]
"""A JSON schema: `{"type": "function", "function": {"name": …, "parameters": …}}`."""

TAGGED = re.compile(r"<function=(?P<name>[^>\s]+)>(?P<arguments>.*?)</function>", flags=re.DOTALL)
PARAMETER = re.compile(r"<parameter=([^>\s]+)>\s*(.*?)\s*</parameter>", flags=re.DOTALL)


def valid_calls(text: str, tools: Sequence[Tool]) -> bool:
    """Whether a text calls a tool, and every call in it can be read, names a tool, and has its required arguments."""
    calls = list(calls_in(text))
    if not calls or text.count(TOOL_CALL_TAG) > len(calls):
        return False
    required = {name: parameters.get("required") or [] for name, parameters in map(_name_and_parameters, tools)}
    return all(call.name in required and set(required[call.name]) <= call.arguments.keys() for call in calls)


def calls_in(text: str) -> Iterator[ToolCall]:
    """The calls in a text: those in JSON, and those in tags.

    In JSON, a call is an object with a `name` and with `arguments` or `parameters`, or one of a list of such objects.
    In tags, it is `<function=NAME>`, with a `<parameter=NAME>` for each argument. Chat templates write calls in one of
    these forms, whatever tokens they put around them.
    """
    for found in TAGGED.finditer(text):
        yield ToolCall(found["name"], dict(PARAMETER.findall(found["arguments"])))
    yield from _in_json(TAGGED.sub("", text))


def _in_json(text: str) -> Iterator[ToolCall]:
    decoder, at = json.JSONDecoder(), 0
    while (at := _next_value(text, at)) < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        for one in value if isinstance(value, list) else [value]:
            if (call := _call(one)) is not None:
                yield call


def _next_value(text: str, start: int) -> int:
    found = [at for mark in "{[" if (at := text.find(mark, start)) >= 0]
    return min(found, default=len(text))


def _call(value: Any) -> ToolCall | None:
    given = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        return None
    arguments = given.get("arguments", given.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    return ToolCall(given["name"], arguments) if isinstance(arguments, Mapping) else None


def _name_and_parameters(tool: Tool) -> tuple[str, Mapping[str, Any]]:
    function = tool.get("function", tool)
    parameters = function.get("parameters")
    return function["name"], parameters if isinstance(parameters, Mapping) else {}
