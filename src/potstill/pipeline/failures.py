"""Failures that a user can repair, each explained in one sentence: a full disk, too little memory."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from potstill.errors import UserError, is_out_of_memory
from potstill.recipe.step import Step

_BATCH_SIZE_KEY = "`distil.training.per_device_train_batch_size` (and raise `gradient_accumulation_steps` by as much)"
REMEDIES = {
    "capture": "lower `capture.batch_size` or `corpus.sequence_length`",
    "distil": f"lower {_BATCH_SIZE_KEY} or `corpus.sequence_length`",
    "search": f"lower {_BATCH_SIZE_KEY} or `corpus.sequence_length`",
    "control": f"lower {_BATCH_SIZE_KEY} or `corpus.sequence_length`",
    "evaluate": "lower `evaluate.batch_size` or `corpus.sequence_length`",
    "corpus": "give `corpus.sources` less text",
}
"""How a user lowers the memory of a stage. In other stages, the models themselves do not fit."""


@contextmanager
def explain_failures(step: Step, folder: Path) -> Iterator[None]:
    """Turn a failure with a known remedy into a `UserError` that names the remedy. Other failures pass unchanged."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        sentence = _explanation(error, step, folder)
        if sentence is None:
            raise
        raise UserError(sentence) from error


def _explanation(error: Exception, step: Step, folder: Path) -> str | None:
    text, number = str(error).lower(), error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "no space left on device" in text:
        return (
            f"{step}: the disk that holds {folder} is full; make room there or choose another `--run-dir`, "
            "then run the same command: it continues from the finished files"
        )
    if number == errno.ENOMEM or is_out_of_memory(error):
        remedy = REMEDIES.get(step.stage, "free some, or choose a smaller model in `teachers` or `student`")
        return f"{step}: out of memory; {remedy}, then run the same command"
    return None
