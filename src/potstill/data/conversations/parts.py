"""Parts of a row: its messages, typed parts, tool calls and tools, in the forms that people write them in."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from potstill.data.conversations.conversation import BadRowError, Message, ToolCall
from potstill.recipe.conversations import ROLES

CALL = "call"
"""The role of a message that is nothing but a tool call; it becomes an assistant's turn."""

ROLE_NAMES = {
    **{role: role for role in ROLES},
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "model", "bot", "chatgpt", "ai"), "assistant"),
    **dict.fromkeys(("function", "ipython", "observation", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), CALL),
    "developer": "system",
}
REASONING = ("reasoning_content", "reasoning", "thinking")
WEIGHTS = ("weight", "loss_weight", "train", "loss")
"""Keys by which a message says whether it is learned: those of OpenAI, LLaMA-Factory, axolotl and ms-swift."""

TEXT_PARTS = ("text", "input_text", "output_text")
REASONING_PARTS = ("reasoning", "thinking")
CALL_PARTS = ("tool_call", "function_call")

THOUGHT = re.compile(r"\s*<think>(?P<reasoning>.*?)</think>(?P<content>.*)", flags=re.DOTALL)
UNOPENED = re.compile(r"(?P<reasoning>(?:(?!<think>).)*?)</think>(?P<content>.*)", flags=re.DOTALL)
"""Reasoning whose `<think>` stood in the prompt."""


def message_of(given: Mapping[str, Any], keys: tuple[str, str], roles: Mapping[str, str], where: str) -> Message:
    """A message of a row.

    Args:
        given: the message.
        keys: the names of its role and of its content.
        roles: further names of roles.
        where: names the row.

    Raises:
        BadRowError: it has no role that is known, holds anything but text, or has a call or a weight that cannot be
            read.
    """
    role = _role(given.get(keys[0]), keys[0], roles, where)
    content, reasoning, calls = _content(given.get(keys[1]), role, where)
    reasoning = next((value for key in REASONING if isinstance(value := given.get(key), str)), "") or reasoning
    reasoning = reasoning if reasoning.strip() else ""
    calls += _calls(given.get("tool_calls"), where)
    if given.get("function_call") is not None:
        calls += _calls([given["function_call"]], where)
    inline = False
    if role in ("assistant", CALL) and not reasoning and "</think>" in content:
        found = THOUGHT.fullmatch(content) or UNOPENED.fullmatch(content)
        if found is not None:
            inline = bool(found["reasoning"].strip())
            reasoning, content = (found["reasoning"] if inline else ""), found["content"]
    if role == CALL:
        calls, content = calls + _calls(json_value(content, where, "a tool call"), where), ""
    return Message(
        role="assistant" if role == CALL else role,
        content=content,
        reasoning=reasoning,
        inline=inline and not calls,
        tool_calls=tuple(calls),
        name=_text_or_none(given.get("name")),
        tool_call_id=_text_or_none(given.get("tool_call_id")),
        learn=_weight(given, where),
    )


def _role(given: Any, key: str, roles: Mapping[str, str], where: str) -> str:
    if not isinstance(given, str):
        raise BadRowError(where, f"a message has no `{key}`")
    role = roles.get(given) or ROLE_NAMES.get(given.strip().lower())
    if role is None:
        raise BadRowError(
            where,
            f"the role {given!r} is unknown",
            f"the role {given!r} is unknown (`roles` of the source says which one it is: {', '.join(ROLES)})",
        )
    return role


def _content(given: Any, role: str, where: str) -> tuple[str, str, list[ToolCall]]:
    """The text, the reasoning and the tool calls of a message's content."""
    if given is None or isinstance(given, str):
        return given or "", "", []
    if role == "tool" and not _are_parts(given):
        return json.dumps(given, ensure_ascii=False), "", []
    if not isinstance(given, list):
        raise BadRowError(where, "the content of a message is neither a text nor a list of parts")
    text, reasoning, calls = list[str](), list[str](), list[ToolCall]()
    for part in given:
        kind, value = ("text", part) if isinstance(part, str) else _typed(part, where)
        if kind in CALL_PARTS:
            calls += _calls(value, where)
        elif not isinstance(value, str):
            raise BadRowError(where, f"a part of the type {kind!r} holds no text")
        else:
            (reasoning if kind in REASONING_PARTS else text).append(value)
    return "".join(text), "\n\n".join(reasoning), calls


def _are_parts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(part, Mapping) and "type" in part for part in given)


def _typed(part: Any, where: str) -> tuple[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str):
        raise BadRowError(where, "a part of a message has no `type`")
    if kind not in (*TEXT_PARTS, *REASONING_PARTS, *CALL_PARTS):
        raise BadRowError(
            where, f"a message holds a part of the type {kind!r}, and only texts and tool calls are supported"
        )
    value = next((part[key] for key in ("value", "text", "content", kind) if part.get(key) is not None), None)
    return kind, value


def _calls(given: Any, where: str) -> list[ToolCall]:
    if isinstance(given, str):
        given = json_value(given, where, "a tool call") if given.strip() else None
    if given is None:
        return []
    return [_call(one, where) for one in (given if isinstance(given, Sequence) else [given])]


def _call(given: Any, where: str) -> ToolCall:
    outer = json_value(given, where, "a tool call") if isinstance(given, str) else given
    if not isinstance(outer, Mapping):
        raise BadRowError(where, "a tool call is no object")
    call = outer["function"] if isinstance(outer.get("function"), Mapping) else outer
    name, arguments = call.get("name"), call.get("arguments", call.get("parameters"))
    if not isinstance(name, str) or not name:
        raise BadRowError(where, "a tool call has no `name`")
    if isinstance(arguments, str):
        arguments = json_value(arguments, where, f"the arguments of {name!r}") if arguments.strip() else {}
    if not isinstance(arguments, Mapping | None):
        raise BadRowError(where, "the arguments of a tool call are no object")
    return ToolCall(name, arguments or {}, _text_or_none(outer.get("id")))


def schemas_of(given: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """The tools of a row as JSON schemas.

    Args:
        given: a list of tools, or its JSON. A tool without `type` becomes `{"type": "function", "function": tool}`.
        where: names the row.

    Raises:
        BadRowError: they are no JSON, or no objects with names.
    """
    if isinstance(given, str):
        given = json_value(given, where, "`tools`") if given.strip() else None
    found = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    return tuple(_schema(json_value(tool, where, "a tool") if isinstance(tool, str) else tool, where) for tool in found)


def _schema(tool: Any, where: str) -> Mapping[str, Any]:
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise BadRowError(where, "`tools` holds a tool that is no object with a `name`")
    return tool if inner is not tool and "type" in tool else {"type": "function", "function": inner}


def _weight(given: Mapping[str, Any], where: str) -> bool:
    weights = [given[key] for key in WEIGHTS if given.get(key) is not None]
    for weight in weights:
        if not isinstance(weight, int | float) or weight not in (0, 1):
            raise BadRowError(
                where,
                "the weight of a message is neither 0 nor 1",
                f"a message has the weight {weight!r}, and a weight is 0 or 1",
            )
    return all(weights)


def json_value(text: str, where: str, what: str) -> Any:
    """The value of a text of JSON.

    Raises:
        BadRowError: it is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        cause = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deep"
        kind = "the arguments of a tool call are" if what.startswith("the arg") else f"{what} is"
        raise BadRowError(where, f"{kind} not JSON", f"{what} cannot be read as JSON ({cause})") from None


def without_none(value: Any) -> Any:
    """A value without the keys whose values are None, which tables write where an object has no such key."""
    if isinstance(value, Mapping):
        return {key: without_none(one) for key, one in value.items() if one is not None}
    return [without_none(one) for one in value] if isinstance(value, list | tuple) else value


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
