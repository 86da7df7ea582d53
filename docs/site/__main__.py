"""Builds the site into build/site/html. `make docs` runs it, without a network."""

import subprocess
import sys
from pathlib import Path

from docs.site.commands import commands
from docs.site.pages import collect
from docs.site.recipe_keys import recipe_keys

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "site"


def main() -> int:
    """Write the pages and build the site. A broken link is an error."""
    pages = FOLDER / "pages"
    collect(ROOT, pages)
    reference = pages / "reference"
    reference.mkdir()
    (reference / "recipe.md").write_text(recipe_keys(), encoding="utf-8")
    (reference / "commands.md").write_text(commands(), encoding="utf-8")
    (reference / "python.md").write_bytes((HERE / "python.md").read_bytes())
    settings = FOLDER / "site.yml"
    settings.write_bytes((HERE / "site.yml").read_bytes())
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(settings)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
