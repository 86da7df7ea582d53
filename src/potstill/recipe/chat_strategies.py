"""Strategies of conversations: what teachers read of them under each strategy, and strategies that cannot be followed.

A strategy of conversations has words for the teachers alone. Students read the conversations as they are.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from potstill.recipe.conversations import PROMPT_FIELDS, Conversations, TeacherReading
from potstill.recipe.strategies import SHIPPED, Strategy, fields_of

if TYPE_CHECKING:
    from potstill.recipe.recipe import Recipe

BASE = "base"


def differ(recipe: "Recipe") -> bool:
    """Whether the students of conversations learn by other strategies than `base`."""
    used = {recipe.sample_set_of(variant).strategy for variant in recipe.variants}
    return any(recipe.all_strategies[name] != SHIPPED[BASE] for name in used)


def reading_under(recipe: "Recipe", strategy: str) -> TeacherReading | None:
    """What the teachers read of conversations under a strategy: `corpus.teacher`, with the strategy's words.

    None: what the student reads.
    """
    assert isinstance(recipe.corpus, Conversations)
    given, prompt = recipe.corpus.teacher, recipe.all_strategies[strategy].teacher
    if prompt == SHIPPED[BASE].teacher:
        return given
    return (given or TeacherReading()).model_copy(update={"system": prompt.system, "user": prompt.user})


def key_under(recipe: "Recipe", strategy: str) -> str:
    """The key of these words, for messages."""
    is_base = recipe.all_strategies[strategy] == SHIPPED[BASE]
    return "corpus.teacher" if is_base else f"strategies.{strategy}.teacher"


def complaints_of_chat_strategies(recipe: "Recipe") -> Iterator[str]:
    """A sentence about each strategy of conversations that cannot be followed, or that nothing uses."""
    corpus = recipe.corpus
    if not isinstance(corpus, Conversations):
        return
    used = {
        f"strategies.{BASE}" if name is None else f"experiments.{name}": recipe.sample_set_of(name).strategy
        for name in recipe.variants
    }
    if recipe.generate is not None:
        used["generate.strategy"] = recipe.generate.strategy
    if idle := sorted(set(recipe.strategies) - set(used.values()) - {BASE}):
        yield f"`strategies.{idle[0]}` has no effect; name it in `experiments.NAME.strategy`, or remove it"
    for name in dict.fromkeys([*recipe.strategies, *used.values()]):
        yield from _of_words(name, recipe.all_strategies[name])
    for key, name in used.items():
        if recipe.all_strategies[name] != SHIPPED[BASE]:
            yield from _of_use(recipe, corpus, key, name)


def _of_words(name: str, strategy: Strategy) -> Iterator[str]:
    """Words that conversations have no place for."""
    if strategy.student != SHIPPED[BASE].student:
        yield (
            f"`strategies.{name}.student` needs questions: students read conversations as they are, and so do all "
            "models that are compared; remove it"
        )
    if strategy.teacher.examples:
        yield f"`strategies.{name}.teacher.examples` needs questions; write the examples into `teacher.system`"
    for part, known in PROMPT_FIELDS.items():
        if unknown := sorted(fields_of(getattr(strategy.teacher, part) or "") - set(known)):
            yield (
                f"`strategies.{name}.teacher.{part}` uses the field `{unknown[0]}`, and the fields of conversations "
                f"are {', '.join(known)}"
            )


def _of_use(recipe: "Recipe", corpus: Conversations, key: str, name: str) -> Iterator[str]:
    """Settings that a strategy other than `base` does not go with."""
    if corpus.teacher is not None and corpus.teacher.has_prompt:
        yield (
            f"`corpus.teacher` and `{key}` (strategy `{name}`) both say what the teachers read; move `system` and "
            "`user` of `corpus.teacher` into a strategy"
        )
    if recipe.generate is not None and (reading_under(recipe, name) or TeacherReading()).shows_answers:
        yield (
            f"`{key}`: the strategy `{name}` shows the `reference`, but with `generate` the references are the "
            "teacher's own answers; use another strategy, or remove `generate`"
        )
    if key == "generate.strategy":
        return
    if corpus.layout == "packed":
        yield f"`{key}` (strategy `{name}`) needs `corpus.layout: padded`; remove `layout`, or the strategy"
    if corpus.too_long in ("cut_left", "split_turns"):
        yield (
            f"`{key}` (strategy `{name}`) needs `corpus.too_long: drop` or `cut_right`, not `{corpus.too_long}`; "
            "change it, or remove the strategy"
        )
