"""Checks of the codecs' settings; each refusal names the recipe's key."""

from collections.abc import Sequence

from potstill.errors import UserError

LARGEST_VOCABULARY = 1 << 20
PRECISIONS = (8, 16, 32)


def check_vocabulary(vocabulary: int) -> None:
    """Raises UserError for a vocabulary that is empty or larger than a record's ids."""
    if not 1 <= vocabulary <= LARGEST_VOCABULARY:
        raise UserError(f"a vocabulary of {vocabulary} cannot be captured: sizes from 1 to {LARGEST_VOCABULARY} can.")


def check_kept(vocabulary: int, k: int, bits: int) -> None:
    """Raises UserError for a ``k`` or a number of bits outside its range."""
    if not 1 <= k <= vocabulary:
        raise UserError(f"capture.k is {k}: it must lie between 1 and the teacher's vocabulary of {vocabulary}.")
    if bits not in PRECISIONS:
        raise UserError(f"capture.bits is {bits}: it must be 8, 16 or 32.")


def check_draws(draws: int) -> None:
    """Raises UserError for a number of draws outside its range."""
    if not 1 <= draws <= 1 << 16:
        raise UserError(f"capture.draws is {draws}: it must lie between 1 and 65536.")


def check_temperatures(temperatures: Sequence[float]) -> None:
    """Raises UserError for an empty list, and for temperatures that are repeated or not positive."""
    if not temperatures or min(temperatures) <= 0 or len(set(temperatures)) < len(temperatures):
        raise UserError(f"the temperatures to capture are {list(temperatures)}: give positive temperatures, each once.")


def expect_temperature(captured: Sequence[float], wanted: float) -> None:
    """Raises UserError if the wanted temperature is not among the captured ones."""
    if wanted not in captured:
        raise UserError(
            f"the targets were captured for temperature {', '.join(f'{t:g}' for t in captured)}, and are asked for "
            f"temperature {wanted:g}: use the first, or capture them again for the second."
        )
