"""Faults of potstill itself: the traceback goes into a file, and the user reads one sentence."""

import errno
import os
import platform
import select
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from potstill import distributed
from potstill.errors import UserError, first_line, is_out_of_memory

EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h: an internal fault."""

SECONDS_BETWEEN_RANKS, MOST_SECONDS = 5, 60

FULL = (errno.ENOSPC, errno.EDQUOT)
OF_THE_MACHINE = (
    *FULL,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.EMFILE,
    errno.ENFILE,
)
"""Failures of files that no program can avoid: a full disk, missing rights, a broken disk."""


class FaultError(Exception):
    """A fault of potstill in a run; its cause is the fault itself."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"a fault in {folder}")
        self.folder = folder


@contextmanager
def in_run(folder: Path) -> Iterator[None]:
    """Remember which run a fault belongs to. Errors for users, and an output that nobody reads, pass unchanged."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) and output_is_closed():
            raise
        raise FaultError(folder) from error


def output_is_closed() -> bool:
    """Whether nobody reads standard output any more, as after `potstill recipes | head -1`."""
    if not hasattr(select, "poll"):
        return True
    output = select.poll()
    output.register(sys.__stdout__.fileno() if sys.__stdout__ else 1, 0)
    # A pipe without a reader is reported although nothing is asked for.
    return bool(output.poll(0))


def drop_output() -> None:
    """Send what is left of the output nowhere, because Python complains at its end if it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def let_earlier_ranks_speak() -> None:
    """Wait, if this is not the first rank: usually all ranks meet the same mistake, and one sentence is enough.

    `torchrun` ends the other ranks as soon as one has ended, and so a rank that waits says nothing. A mistake that only
    later ranks meet is told a little later.
    """
    if not distributed.is_first():
        time.sleep(min(SECONDS_BETWEEN_RANKS * distributed.rank(), MOST_SECONDS))


def report(error: Exception, arguments: Sequence[str], *, debug: bool) -> int:
    """Tell the user about an error that nobody explained, and keep its details in a file.

    Only the first rank prints the sentence. Another rank prints the name of its own file.

    Args:
        error: the error.
        arguments: the command, without `potstill`.
        debug: show the traceback instead.

    Returns:
        The exit code: 70; 2 if the machine failed and not potstill; 1 with `debug`, as Python has it.
    """
    cause = error.__cause__ if isinstance(error, FaultError) and error.__cause__ is not None else error
    if debug:
        traceback.print_exception(cause)
        return 1
    if (told := _failure_of_the_machine(cause)) is not None:
        print(f"potstill: {told}", file=sys.stderr)
        return 2
    file = _write_details(_details(cause, arguments), error.folder if isinstance(error, FaultError) else None)
    where = (
        "the details could not be written, and `--debug` shows them" if file is None else f"the details are in {file}"
    )
    if not distributed.is_first():
        print(f"potstill: rank {distributed.rank()}: {where}", file=sys.stderr)
        return EXIT_CODE
    what = f"{type(cause).__name__}: {first_line(cause)}"[:200]
    print(
        f"potstill: this is a fault of potstill and not yours ({what}); {where}; once it is mended, the same command "
        "goes on where it stopped",
        file=sys.stderr,
    )
    return EXIT_CODE


def versions() -> str:
    """The versions of potstill, torch and transformers, without importing them."""
    return ", ".join(f"{name} {_version(name)}" for name in ("potstill", "torch", "transformers"))


def _version(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "not installed"


def _failure_of_the_machine(error: BaseException) -> str | None:
    """A sentence about a failure that has its reason outside potstill; None for any other."""
    if isinstance(error, ImportError) and not (error.name or "potstill").startswith("potstill"):
        return (
            f"the package {error.name} cannot be imported ({first_line(error)}); install it, or install potstill again"
        )
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENOMEM or is_out_of_memory(error):
        return "out of memory; free some, or choose a smaller model or a smaller batch, then run the same command"
    if number in OF_THE_MACHINE:
        assert isinstance(error, OSError)
        file, reason = error.filename or "a file", (error.strerror or str(error)).lower()
        remedy = "make room" if number in FULL else "mend that"
        return f"{file} cannot be read or written ({reason}); {remedy}, then run the same command"
    return None


def _details(error: BaseException, arguments: Sequence[str]) -> str:
    from potstill.recipe.secret_names import without_secret

    command = " ".join(["potstill", *map(without_secret, arguments)])
    system = f"{platform.platform()}, Python {platform.python_version()}, rank {distributed.rank()}"
    return "\n".join([command, versions(), system, "", *traceback.format_exception(error)])


def _write_details(text: str, folder: Path | None) -> Path | None:
    """Write the details into the run folder, the current or the temporary folder; None if none can be written."""
    from potstill.files.atomic import write_text

    rank = "" if distributed.is_first() else f"-rank{distributed.rank()}"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}{rank}.txt"
    loose = f"potstill-error-{name}"
    places = [Path(loose), Path(tempfile.gettempdir()) / loose]
    if folder is not None and folder.is_dir():
        places.insert(0, folder / "errors" / name)
    for place in places:
        while place.exists():
            place = place.with_name(f"{place.stem}+.txt")
        try:
            if place.parent.name == "errors":
                place.parent.mkdir(exist_ok=True)
            write_text(place, text)
        except OSError:
            continue
        return place
    return None
