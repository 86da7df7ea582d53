"""``python -m benchmarks.wheels``: the packages that ``benchmarks.gpu`` needs beside torch and transformers.

``list`` prints them with the versions of this environment, for `pip download`. ``missing FOLDER`` prints the wheels of
a folder whose package this machine lacks, for `pip install`: a package that it has is left as it is.
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

ROOTS = ("potstill", "trl", "liger-kernel")
ON_THE_MACHINE = {"torch", "transformers"}
NOT_IMPORTED = {"codecarbon", "gguf", "vl-convert-python"}
"""What only the pipeline and its report need. They are large, and bring others along."""


def needed(roots: Iterable[str]) -> dict[str, str]:
    """The version of every package that the roots need, by name; not the roots' extras, nor what is on each machine.

    Nor what no benchmark imports: a folder of wheels may have to be carried to the machine.
    """
    found: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = _plain(waiting.pop())
        if name in found or name in ON_THE_MACHINE | NOT_IMPORTED:
            continue
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # Liger's wheel is installed without the triton that it names
            continue
        wanted = [Requirement(line) for line in requires(name) or ()]
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def missing(folder: Path) -> list[Path]:
    """The wheels whose package is not installed."""
    return [wheel for wheel in sorted(folder.glob("*.whl")) if not _is_installed(wheel.name.split("-")[0])]


def _is_installed(name: str) -> bool:
    try:
        version(_plain(name))
    except PackageNotFoundError:
        return False
    return True


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    if sys.argv[1:] == ["list"]:
        print("\n".join(f"{name}=={number}" for name, number in sorted(needed(ROOTS).items()) if name != "potstill"))
    elif sys.argv[1:2] == ["missing"]:
        print("\n".join(map(str, missing(Path(sys.argv[2])))))
    else:
        sys.exit(__doc__)
