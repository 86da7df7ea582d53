"""Audit page: what is learned of the conversations of a corpus, as a page of its own and as lines for a terminal."""

from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import quote

from potstill.data.conversations.audit import Audit, SourceAudit
from potstill.report.page import ICON

if TYPE_CHECKING:
    from rich.text import Text

LEARNED = "bold green"
"""The style of learned text on a terminal. Brackets mark it too, for terminals without colours."""


def render_audit(audit: Audit) -> str:
    """The whole page as a string; write it as UTF-8."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # Space is a part of what is shown, so no block eats it.
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    files = resources.files("potstill.report")
    template = environment.from_string(files.joinpath("audit.html").read_text(encoding="utf-8"))
    reasons = [(one.source, reason, count) for one in audit.sources for reason, count in one.dropped.items()]
    return template.render(
        title="What is learned of the conversations",
        icon=quote(ICON),
        css=Markup(files.joinpath("page.css").read_text(encoding="utf-8")),
        audit=audit,
        tokens=sum(source.tokens for source in audit.sources),
        samples=sum(source.samples for source in audit.sources),
        rows=[_figures(source) for source in audit.sources],
        reasons=reasons,
        notes=list(audit_notes(audit)),
    )


def _figures(source: SourceAudit) -> list[str]:
    outcomes = [source.conversations.get(outcome, 0) for outcome in ("whole", "cut", "split")]
    counts = [source.rows, *outcomes, sum(source.dropped.values()), source.samples, source.turns, source.turns_in_all]
    share = f"{source.supervised / source.tokens:.1%}" if source.tokens else "–"
    return [source.source, *(f"{count:,}" for count in (*counts, source.tokens, source.supervised)), share]


def audit_notes(audit: Audit) -> Iterator[str]:
    """Sentences about what a reader would not expect."""
    for source in audit.sources:
        if source.rewritten:
            yield (
                f"{source.source}: the chat template rewrites the earlier turns of {source.rewritten:,} conversations, "
                "so each of their turns is a sample of its own, with the conversation before it."
            )
        for part, count in source.left_out.items():
            yield f"{source.source}: the chat template leaves out the {part} of {count:,} learned turns."


def shown_conversations(audit: Audit, count: int) -> "Iterator[Text]":
    """The first conversations of each source for a terminal, what is learned in colour and between `⟦` and `⟧`.

    Args:
        audit: the audit.
        count: the greatest number of conversations of each source.
    """
    from rich.text import Text

    for source in audit.sources:
        for one in source.shown[:count]:
            text = Text(f"── {one.where}\n", style="dim")
            for run in one.runs:
                text.append(f"⟦{run.text}⟧" if run.learned else run.text, style=LEARNED if run.learned else "not dim")
            yield text
