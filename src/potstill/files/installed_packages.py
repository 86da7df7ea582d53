"""Files inside installed packages, found without an import of the package, which may be slow or fail."""

import importlib.util
from pathlib import Path

from potstill.errors import UserError
from potstill.files.named_files import matching_files


def package_folder(package: str, key: str) -> Path:
    """The folder of an installed package.

    Raises:
        UserError: no such package is installed; `key` is the recipe key that named it.
    """
    # Only top-level packages: to find a subpackage, Python would import its parent.
    spec = importlib.util.find_spec(package) if package.isidentifier() and package != "__main__" else None
    if spec is None or not spec.submodule_search_locations:
        name = package.replace("_", "-")
        raise UserError(
            f"`{key}`: no package {package!r} is installed here; install it into this environment: "
            f"pip install --no-deps {name}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def package_files(package: str, pattern: str, section: str, key: str) -> list[Path]:
    """The files of an installed package that match a pattern with shell wildcards, sorted.

    A name that exists is a name, whatever characters it has.

    Args:
        package: the package's import name.
        pattern: the file's path within the package's folder.
        section: the recipe's section that names the package (as `package`) and the pattern, for messages.
        key: the key of the pattern in that section.

    Raises:
        UserError: there is no such package, or no such file in it.
    """
    folder = package_folder(package, f"{section}.package")
    files = matching_files(pattern, folder)
    if not files:
        raise UserError(f"`{section}.{key}`: no file {pattern!r} in the installed package {package!r} ({folder})")
    return files
