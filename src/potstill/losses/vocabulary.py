"""Vocabularies of one tokenizer family: the same tokens under the same ids, in models padded to different sizes.

Qwen2.5 has 151665 tokens; its models have heads of 151936 rows, or of 152064. The rows beyond the last token are
padding: no token, no label, and logits that nobody trained. A loss looks at the shared ids only: student and teacher
are both normalised over them (``vocabulary`` in ``chunked.distillation_loss``), and padding gets no gradient at all.
"""

from typing import Protocol

from potstill.words import UserError


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    name_or_path: str

    def get_vocab(self) -> dict[str, int]:
        """Ids by token, added tokens among them."""


def shared_vocabulary(student: Tokenizer, teacher: Tokenizer) -> int:
    """The number n of ids such that 0 to n-1 are the same strings in both; all that the smaller of the two has.

    A token that only one of them has must come after all that they share. It cannot be a label: losses refuse it.

    Raises:
        UserError: two different vocabularies, naming both tokenizers and the first id that they disagree on.
    """
    of_student = {id: token for token, id in student.get_vocab().items()}
    of_teacher = {id: token for token, id in teacher.get_vocab().items()}
    shared = min(max(of_student, default=-1), max(of_teacher, default=-1)) + 1
    for id in range(shared):
        if of_student.get(id) != of_teacher.get(id):
            raise UserError(
                f"the student's tokenizer {student.name_or_path!r} and the teacher's {teacher.name_or_path!r} are not "
                f"one family: id {id} is {_named(of_student.get(id))} in the one and {_named(of_teacher.get(id))} in "
                "the other"
            )
    if not shared:
        raise UserError(f"the tokenizers {student.name_or_path!r} and {teacher.name_or_path!r} share no token")
    return shared


def _named(token: str | None) -> str:
    return "no token" if token is None else repr(token)
