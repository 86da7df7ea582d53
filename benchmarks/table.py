"""Markdown tables, for the terminal and for docs/performance.md."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """A table with a title and a note."""

    title: str
    header: Sequence[str]
    note: str = ""
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        assert len(cells) == len(self.header), (cells, self.header)
        self.rows.append(cells)

    def markdown(self) -> str:
        """The title, the table in columns of even width, and the note."""
        lines = [self.header, *self.rows]
        widths = [max(3, *(len(line[at]) for line in lines)) for at in range(len(self.header))]
        ruler = ["-" * width for width in widths]
        rows = [_row(line, widths) for line in [self.header, ruler, *self.rows]]
        return "\n".join([f"### {self.title}", "", *rows, *(["", self.note] if self.note else [])])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
