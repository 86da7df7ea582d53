"""Shared vocabulary: models of one tokenizer family have the same tokens under the same ids, but differ in padding.

Qwen2.5 has 151665 tokens; its models have heads of 151936 rows, or of 152064. The rows beyond the last token are
padding: no token, no label, and untrained logits. A loss compares only the shared ids. It normalises student and
teacher over them (``vocabulary`` in ``chunked.distillation_loss``), and padding gets no gradient.
"""

from collections.abc import Iterable
from typing import Protocol

from potstill.errors import UserError


class HasVocabulary(Protocol):
    """The part of a transformers tokenizer that is used here."""

    name_or_path: str

    def get_vocab(self) -> dict[str, int]:
        """The id of each token, with added tokens."""


def shared_vocabulary(student: HasVocabulary, teacher: HasVocabulary) -> int:
    """The number n of shared ids: ids 0 to n-1 are the same strings in both, and the smaller one has no more.

    A token that only one of them has must come after the shared ones. It cannot be a label: losses refuse it.

    Raises:
        UserError: the vocabularies differ. It names both tokenizers and the first id at which they differ.
    """
    of_student = {id: token for token, id in student.get_vocab().items()}
    of_teacher = {id: token for token, id in teacher.get_vocab().items()}
    shared = min(max(of_student, default=-1), max(of_teacher, default=-1)) + 1
    for id in range(shared):
        if of_student.get(id) != of_teacher.get(id):
            raise UserError(
                f"the student's tokenizer {student.name_or_path!r} and the teacher's {teacher.name_or_path!r} are not "
                f"one family: id {id} is {_named(of_student.get(id))} in the one and {_named(of_teacher.get(id))} in "
                'the other; use models of one tokenizer, or `Loss("alm")` as the only loss from a teacher'
            )
    if not shared:
        raise UserError(
            f"the tokenizers {student.name_or_path!r} and {teacher.name_or_path!r} share no token, because one of them "
            "has none; give the models' own"
        )
    return shared


def compared_vocabulary(
    student: int, tokenizer: HasVocabulary | None, teachers: Iterable[tuple[int, HasVocabulary | None]]
) -> int | None:
    """The number of ids on which a student and all its teachers are compared; None for all, where nothing is padded.

    Args:
        student: the rows of the student's head.
        tokenizer: the student's tokenizer.
        teachers: for each teacher the rows of its head, and its tokenizer. The tokenizer may be None only where the
            head has the student's size.

    Raises:
        UserError: the sizes differ and a tokenizer is missing, or the tokenizers are not one family.
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
                'that they can be compared on the tokens that they share, or, of different tokenizers, by `Loss("alm")`'
            )
        found.append(min(theirs, shared_vocabulary(tokenizer, other)))
    shared = min([student, *found])
    return None if sizes == {shared} else shared


def _named(token: str | None) -> str:
    return "no token" if token is None else repr(token)
