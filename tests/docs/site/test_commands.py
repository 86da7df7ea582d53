"""Every verb stands in the reference, with its options and their help."""

from typer.main import get_command

from docs.site.commands import commands
from potstill.cli.main import app


def test_every_verb_and_option_is_there():
    page = commands()
    for name, verb in get_command(app).commands.items():
        section = page.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]
        assert section or verb.hidden, name
        for one in verb.params:
            assert verb.hidden or getattr(one, "hidden", False) or one.opts[-1].lower() in section.lower(), (name, one)
