"""The routes that servers have in the style of OpenAI's: the list of models, and texts as tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.errors import UserError
from potstill.servers.client import Client, RefusedError


def listed_model(client: Client, model: str) -> Mapping[str, Any]:
    """The entry of a model in a server's list of models.

    Raises:
        UserError: the server has no such model; names those that it has.
    """
    here = client.connection
    listed = client.get("/v1/models")
    try:
        entries = {str(entry["id"]): entry for entry in listed["data"]}
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{here.setting}: {here.url} does not list its models; it is no server of this `api`"
        ) from error
    if model not in entries:
        raise UserError(
            f"`teachers.{here.name}.model`: {here.url} has no model {model!r}; it serves {', '.join(entries) or 'none'}"
        )
    entry: Mapping[str, Any] = entries[model]
    return entry


def version_of(client: Client, path: str, key: str = "version") -> str | None:
    """The version that a server gives at a path; None if it gives none."""
    try:
        found = client.get(path)
    except RefusedError as refusal:
        if refusal.status in (401, 403):
            raise
        return None
    version = found.get(key) if isinstance(found, dict) else None
    return None if version is None else str(version)


def tokens_of(client: Client, model: str, text: str) -> list[int]:
    """The server's tokens of a text, by its route `/tokenize`."""
    found = _ask(client, "/tokenize", {"model": model, "prompt": text, "add_special_tokens": False}, "tokens")
    return [int(token) for token in found]


def text_of(client: Client, model: str, ids: Sequence[int]) -> str:
    """The server's text of tokens, by its route `/detokenize`."""
    return str(_ask(client, "/detokenize", {"model": model, "tokens": [*ids]} | KEEP_SPECIAL, "prompt", "text"))


KEEP_SPECIAL = {"skip_special_tokens": False}
"""SGLang leaves special tokens out unless it is told so; vLLM has no such setting and writes all."""


def _ask(client: Client, path: str, body: Mapping[str, Any], *names: str) -> Any:
    here = client.connection
    try:
        found = client.post(path, body)
    except RefusedError as refusal:
        if refusal.status not in (404, 405):
            raise
        raise UserError(
            f"{here.setting}: {here.url} has no route {path}, so its tokens cannot be compared with the run's; take a "
            "version of the server that has it"
        ) from refusal
    for name in names:
        if isinstance(found, dict) and name in found:
            return found[name]
    raise UserError(f"{here.setting}: {here.url} answers {path} without `{names[0]}`; it is no server of this `api`")
