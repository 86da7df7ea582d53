"""What the codecs' settings may be, each refused in one sentence that names the key."""

from collections.abc import Sequence

from potstill.errors import UserError

LARGEST_VOCABULARY = 1 << 20
PRECISIONS = (8, 16, 32)


def check_vocabulary(vocabulary: int) -> None:
    """Raises UserError for a vocabulary whose ids no record can hold."""
    if not 1 <= vocabulary <= LARGEST_VOCABULARY:
        raise UserError(f"a vocabulary of {vocabulary} cannot be captured: sizes from 1 to {LARGEST_VOCABULARY} can.")


def check_kept(vocabulary: int, k: int, bits: int) -> None:
    """Raises UserError for a ``k`` or a precision that no record can have."""
    if not 1 <= k <= vocabulary:
        raise UserError(f"capture.k is {k}: it must lie between 1 and the teacher's vocabulary of {vocabulary}.")
    if bits not in PRECISIONS:
        raise UserError(f"capture.bits is {bits}: it must be 8, 16 or 32.")


def check_draws(draws: int) -> None:
    """Raises UserError for a number of draws that no record can have."""
    if not 1 <= draws <= 1 << 16:
        raise UserError(f"capture.draws is {draws}: it must lie between 1 and 65536.")


def check_temperatures(temperatures: Sequence[float]) -> None:
    """Raises UserError for temperatures that are none, repeated or not positive."""
    if not temperatures or min(temperatures) <= 0 or len(set(temperatures)) < len(temperatures):
        raise UserError(f"the temperatures to capture are {list(temperatures)}: name positive ones, each once.")


def expect_temperature(captured: Sequence[float], wanted: float) -> None:
    """Raises UserError if targets that were captured at some temperatures are asked for another."""
    if wanted not in captured:
        raise UserError(
            f"the targets were captured for temperature {', '.join(f'{t:g}' for t in captured)}, and are asked for "
            f"temperature {wanted:g}: use the first, or capture them again for the second."
        )
