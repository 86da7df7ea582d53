"""Check: whether a conversation is one that a model can learn from, before any template sees it."""

from itertools import pairwise

from potstill.data.conversations.conversation import BadRowError, Conversation, Message


def check_conversation(conversation: Conversation) -> None:
    """Refuse a conversation whose turns do not follow each other, or in which there is nothing to learn.

    Raises:
        BadRowError: what is wrong, and where.
    """
    where, messages = conversation.where, conversation.messages
    turns = [message for message in messages if message.role != "system"]
    if not turns:
        raise BadRowError(where, "has no turns")
    if turns[0].role != "user":
        raise BadRowError(where, f"begins with a turn of the {turns[0].role}, and must begin with the user's")
    if not any(message.role == "assistant" for message in turns):
        raise BadRowError(where, "has no turn of the assistant")
    for number, message in enumerate(turns, 1):
        if message.role != "tool" and _is_empty(message):
            raise BadRowError(
                where, f"an empty turn of the {message.role}", f"turn {number}, of the {message.role}, is empty"
            )
    for number, (before, after) in enumerate(pairwise(turns), 2):
        _check_order(before, after, number, where)
    _check_results(turns, where)


def _is_empty(message: Message) -> bool:
    return not (message.content.strip() or message.reasoning.strip() or message.tool_calls)


def _check_order(before: Message, after: Message, number: int, where: str) -> None:
    if before.role == after.role != "tool":
        raise BadRowError(
            where,
            f"two turns of the {after.role} follow each other",
            f"turns {number - 1} and {number} are both of the {after.role}",
        )


def _check_results(turns: list[Message], where: str) -> None:
    """Refuse results of tools that the assistant has not called in its last turn."""
    caller = None
    for number, message in enumerate(turns, 1):
        if message.role != "tool":
            caller = message
            continue
        known = {call.id for call in caller.tool_calls} if caller is not None else set()
        unknown = message.tool_call_id is not None and None not in known and known and message.tool_call_id not in known
        if caller is None or not caller.calls or unknown:
            raise BadRowError(
                where, "a tool's result without a call", f"turn {number} is a tool's result, but no tool was called"
            )
