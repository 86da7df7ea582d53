"""Tool calls: finds the calls in a text that a model wrote, and whether its tools take them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from potstill.data.conversations.conversation import TOOL_CALL_TAG, ToolCall

Tool = Mapping[str, Any]
"""A JSON schema: `{"type": "function", "function": {"name": …, "parameters": …}}`."""

TAGGED = re.compile(r"<function=(?P<name>[^<>\s]+)>(?P<arguments>.*?)</function>", flags=re.DOTALL)
PARAMETER = re.compile(r"<parameter=(?P<name>[^<>\s]+)>(?P<value>.*?)</parameter>", flags=re.DOTALL)
OBJECT = re.compile(r"\{\s*\"")
"""The beginning of an object in JSON that is not empty."""


def valid_calls(text: str, tools: Sequence[Tool]) -> bool:
    """Whether a text calls a tool, and every call in it can be read, names a tool, and has its required arguments."""
    calls = list(calls_in(text))
    if not calls or text.count(TOOL_CALL_TAG) > len(calls):
        return False
    required = {name: parameters.get("required") or [] for name, parameters in map(_name_and_parameters, tools)}
    return all(call.name in required and set(required[call.name]) <= call.arguments.keys() for call in calls)


def calls_in(text: str) -> Iterator[ToolCall]:
    """The calls in a text: those in JSON, and those in tags.

    In JSON, a call is an object with a `name` and with `arguments` or `parameters`. It may stand in a list.
    In tags, it is `<function=NAME>`, with a `<parameter=NAME>` for each argument. Chat templates write calls in one of
    these forms, whatever tokens they put around them.
    """
    closed, end, rest = text.rpartition("</function>")
    for found in TAGGED.finditer(closed + end):
        given, close, _ = found["arguments"].rpartition("</parameter>")
        arguments = {one["name"]: one["value"].strip() for one in PARAMETER.finditer(given + close)}
        yield ToolCall(found["name"], arguments)
    yield from _in_json(TAGGED.sub("", closed + end) + rest)


def _in_json(text: str) -> Iterator[ToolCall]:
    decoder, begin = json.JSONDecoder(), OBJECT.search(text)
    while begin is not None:
        at = begin.end()
        with suppress(ValueError):
            try:
                value, at = decoder.raw_decode(text, begin.start())
            except RecursionError:
                # The rest is nested too deep to be read.
                return
            if (call := _call(value)) is not None:
                yield call
        begin = OBJECT.search(text, at)


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
