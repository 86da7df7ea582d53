"""Pages: the repository's own pages, at the places that they have there, so that every link stays as it is written."""

import json
import os
import re
import shutil
from pathlib import Path

from docs.site.plots import with_plots

TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
"""The pages outside of docs/. The first is the site's own first page."""
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
NOTEBOOK = ".ipynb"
SHOWN_AS = {".yaml": "yaml", ".yml": "yaml", ".py": "python", ".sh": "bash", ".cff": "yaml", NOTEBOOK: ""}
"""Files of text that a page may link to: each becomes a page that shows it."""


def collect(root: Path, folder: Path) -> None:
    """Copy the pages, and the pictures and files that they link to.

    Args:
        root: the repository.
        folder: where they go; what is there is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    linked: set[Path] = set()
    for page in [*(root / name for name in TOP), *sorted((root / "docs").rglob("*.md"))]:
        if not page.exists() or page.is_relative_to(root / "docs" / "site"):
            continue
        place = page.relative_to(root)
        target = folder / ("index.md" if place.name == TOP[0] else place)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = _with_links(page, root, linked)
        if page.parent.name == "experiments":
            text = with_plots(text, target.parent, page.stem)
        target.write_text(text, encoding="utf-8")
    for file in sorted(linked):
        _copy(file, folder / file.relative_to(root))


def _with_links(page: Path, root: Path, linked: set[Path]) -> str:
    """The text of a page, in which links to files lead to the pages that show them."""

    def link(found: re.Match[str]) -> str:
        before, path, after = found.groups()
        target = Path(os.path.normpath(page.parent / path))
        if re.match(r"[a-z]+:", path) or not target.is_file():
            return found.group()
        if target.suffix != ".md":
            linked.add(target)
            return f"{before}{path}.md{after}" if target.suffix in SHOWN_AS else found.group()
        return f"{before}{path.removesuffix('README.md')}index.md{after}" if target == root / TOP[0] else found.group()

    return LINK.sub(link, page.read_text(encoding="utf-8"))


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix not in SHOWN_AS:
        shutil.copy(file, target)
        return
    text = file.read_text(encoding="utf-8")
    shown = (
        f"# `{file.name}`\n\n````{SHOWN_AS[file.suffix]}\n{text}````\n" if file.suffix != NOTEBOOK else _notebook(text)
    )
    target.with_name(f"{file.name}.md").write_text(shown, encoding="utf-8")


def _notebook(text: str) -> str:
    """The cells of a notebook, without what they have printed."""
    fences = {"markdown": ("", ""), "code": ("````python\n", "\n````")}
    cells = [("".join(cell["source"]), *fences[cell["cell_type"]]) for cell in json.loads(text)["cells"]]
    return "\n\n".join(f"{before}{source}{after}" for source, before, after in cells) + "\n"
