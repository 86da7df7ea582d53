"""Vocabulary agreement: checks that student and teachers share their tokens, and counts the compared ones."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.errors import UserError
from potstill.losses.loss import Loss
from potstill.models.shared_vocabulary import compared_vocabulary
from potstill.targets import TargetStore
from potstill.targets.codecs.registry import CrossingCodec, TokenCodec
from potstill.teachers.beside import TeacherBeside


def agreed_vocabulary(
    student: PreTrainedModel,
    tokenizer: Any,
    teachers: Sequence[TeacherBeside | TargetStore],
    given: Any,
    losses: Sequence[Loss],
) -> int | None:
    """The number of ids that all losses compare; None: all ids of the heads.

    Args:
        student: the student.
        tokenizer: the student's tokenizer, or None.
        teachers: the live teachers and stores that the student learns from.
        given: the tokenizer of all teachers, or a list with one tokenizer for each, or None. A student without teachers
            is treated as if it had a teacher with this tokenizer.
        losses: the losses over tokens.

    Raises:
        UserError: a store has another tokenizer or temperature, or the models' shared tokens cannot be proven.
    """
    if any(loss.crosses_tokenizers for loss in losses):
        # Texts are compared with a teacher of another tokenizer, so only the student's own padding is left out.
        return compared_vocabulary(head_rows(student), tokenizer, [(head_rows(student), tokenizer)])
    tokenizers = list(given) if isinstance(given, list | tuple) else [given] * max(1, len(teachers))
    if teachers and len(tokenizers) != len(teachers):
        raise UserError(f"`teacher_tokenizer` has {len(tokenizers)} tokenizers for {len(teachers)} teachers")
    ours = head_rows(student)
    found = [] if teachers else [(ours, theirs) for theirs in tokenizers]
    for one, theirs in zip(teachers, tokenizers, strict=False):
        if not gives_whole_distributions(one):
            _check_temperatures(one, losses)
        if not isinstance(one, TargetStore):
            found.append((rows_of_config(one.config), theirs))
            continue
        rows = _codec(one).vocabulary
        _check_store(one, tokenizer)
        # By now it is proven that the store's targets are of the student's own tokenizer.
        found.append((rows, tokenizer if theirs is None and rows != ours else theirs))
    shared = compared_vocabulary(ours, tokenizer, found)
    for one in teachers:
        if not gives_whole_distributions(one):
            _check_width(one, shared or ours)
    return shared


def gives_whole_distributions(teacher: TeacherBeside | TargetStore) -> bool:
    """Whether a teacher's targets are whole distributions, at any temperature and over any of its ids."""
    return teacher.codec.mode == "hidden" if isinstance(teacher, TargetStore) else teacher.gives_whole_distributions


def head_rows(model: PreTrainedModel) -> int:
    """The number of ids that a model's head has, padding among them."""
    return rows_of_config(model.config)


def rows_of_config(config: Any) -> int:
    """As :func:`head_rows`, by a model's configuration."""
    return (config.get_text_config() if hasattr(config, "get_text_config") else config).vocab_size


def _check_temperatures(teacher: TeacherBeside | TargetStore, losses: Sequence[Loss]) -> None:
    temperatures = sorted({loss.temperature for loss in losses if loss.needs_teacher})
    if len(temperatures) > 1:
        where = teacher.path if isinstance(teacher, TargetStore) else "a teacher behind a server"
        raise UserError(
            f"the losses have temperatures {temperatures}, but {where} can be read at only one temperature; give them "
            "one, capture hidden states, or let the teacher run beside the student"
        )


def _codec(store: TargetStore) -> TokenCodec:
    """The codec of a store that has distributions over the student's tokens."""
    if isinstance(store.codec, CrossingCodec):
        raise UserError(
            f"{store.path} keeps spans, two numbers a token for the loss alm, and no distributions; use "
            '`Loss("alm")` as the only loss from a teacher, or capture with another `keep`'
        )
    return store.codec


def _check_store(store: TargetStore, tokenizer: Any) -> None:
    if tokenizer is not None:
        captured, here = store.header.provenance.tokenizer, tokenizer_fingerprint(tokenizer)
        if captured != here:
            raise UserError(
                f"the targets in {store.path} were captured with tokenizer {captured}, but `processing_class` is "
                f"tokenizer {here}; give the one that they were captured with, capture them again, or, of a teacher "
                'of another tokenizer, capture spans (`keep: spans`) and use `Loss("alm")`'
            )


def _check_width(teacher: TeacherBeside | TargetStore, shared: int) -> None:
    """Refuse targets of too many ids. A head can be cut, but the tail's share on unshared ids is unknown."""
    if not isinstance(teacher, TargetStore):
        if rows_of_config(teacher.config) > shared:
            raise UserError(
                f"a teacher behind a server has {rows_of_config(teacher.config):,} ids, and student and teachers share "
                f"{shared:,}: the mass of the other ids cannot be removed from its targets; take a student with all of "
                "its teacher's tokens"
            )
        return
    captured = _codec(teacher).vocabulary
    if captured > shared:
        raise UserError(
            f"the targets in {teacher.path} were captured over {captured:,} ids, but student and teachers share "
            f"{shared:,}, and the mass of the other ids cannot be removed from them; capture again over the shared ids "
            f"(`LiveTeacher(model, vocabulary={shared})`), or capture hidden states"
        )
