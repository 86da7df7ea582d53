"""Commands: the reference of every verb, from the help that the command itself prints."""

from typing import Any

import typer
from typer.main import get_command

from potstill.cli.main import app

HEAD = "# Commands\n\n`potstill VERB --help` prints the same. `--debug` shows the traceback of an error, on any verb.\n"


def commands() -> str:
    """The page."""
    group: Any = get_command(app)
    context = typer.Context(group, info_name="potstill")
    lines = [HEAD]
    for name in group.list_commands(context):
        verb = group.get_command(context, name)
        if not verb.hidden:
            lines += [f"\n## `{name}`\n", _plain(verb.help), *_usage(name, verb)]
    return "\n".join(lines).rstrip() + "\n"


def _usage(name: str, verb: Any) -> list[str]:
    arguments = [one for one in verb.params if one.param_type_name == "argument"]
    asked = " ".join(_argument(one) for one in arguments)
    lines = ["", "```text", f"potstill {name} [OPTIONS] {asked}".rstrip(), "```", ""]
    for one in verb.params:
        if not getattr(one, "hidden", False):
            called = _argument(one) if one in arguments else ", ".join([*one.opts, *one.secondary_opts])
            lines.append(f"- **`{called}`** {_plain(getattr(one, 'help', '') or '')}".rstrip())
    return lines


def _argument(one: Any) -> str:
    name = one.name.upper()
    return f"{name if one.required else f'[{name}]'}{'…' if one.nargs == -1 else ''}"


def _plain(text: str | None) -> str:
    return " ".join((text or "").replace("\b", "").split())
