"""Where the page of an experiment goes."""

from pathlib import Path

from potstill.files.atomic import write_text


def write_page(file: Path, text: str, *, rehearsed: bool = False) -> None:
    """Write the page of an experiment, and say where it is. Of a rehearsal, the page is only shown."""
    if rehearsed:
        print(text)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    print(f"written: {file}")
