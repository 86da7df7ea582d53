"""Vocabularies of one tokenizer family: the same tokens under the same ids, in models padded to different sizes.

Qwen2.5 has 151665 tokens; its models have heads of 151936 rows, or of 152064. The rows beyond the last token are
padding: no token, no label, and logits that nobody trained. A loss looks at the shared ids only: student and teacher
are both normalised over them (``vocabulary`` in ``chunked.distillation_loss``), and padding gets no gradient at all.
"""

from collections.abc import Iterable
from typing import Protocol

from potstill.errors import UserError


class HasVocabulary(Protocol):
    """What is needed of a transformers tokenizer."""

    name_or_path: str

    def get_vocab(self) -> dict[str, int]:
        """Ids by token, added tokens among them."""


def shared_vocabulary(student: HasVocabulary, teacher: HasVocabulary) -> int:
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


def compared_vocabulary(
    student: int, tokenizer: HasVocabulary | None, teachers: Iterable[tuple[int, HasVocabulary | None]]
) -> int | None:
    """The number of ids that a student and all of its teachers are compared on; None: all of them, nothing is padded.

    Args:
        student: the rows of the student's head.
        tokenizer: the student's.
        teachers: of each teacher the rows of its head and its tokenizer, which may be left out only where its head is
            of the student's size.

    Raises:
        UserError: two sizes and no tokenizer to prove that they are of one family, or two families.
    """
    found, sizes = [], {student}
    for theirs, other in teachers:
        sizes.add(theirs)
        if other is None and theirs == student:
            continue
        if tokenizer is None or other is None:
            missing = "`processing_class`" if tokenizer is None else "`teacher_tokenizer`"
            raise UserError(
                f"a teacher has a vocabulary of {theirs:,} ids and the student one of {student:,}; give {missing}, so "
                "that they can be compared on the tokens that they share"
            )
        found.append(min(theirs, shared_vocabulary(tokenizer, other)))
    shared = min([student, *found])
    return None if sizes == {shared} else shared


def _named(token: str | None) -> str:
    return "no token" if token is None else repr(token)
