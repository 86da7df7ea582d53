"""Measure: the amounts of a corpus that is on this machine, with the tokenizer that is on it. Nothing is downloaded."""

from typing import Any

from potstill.data.conversations.chat_template import chat_template
from potstill.data.tokenization import Encoder, separator_ids
from potstill.errors import UserError
from potstill.planning.amounts import Amounts
from potstill.planning.sampling.local_tokenizer import local_tokenizer, tokenizer_of, trained_tokenizer
from potstill.planning.sampling.measured_chats import measured_chats
from potstill.planning.sampling.measured_questions import measured_questions
from potstill.planning.sampling.measured_text import measured_text
from potstill.recipe import Recipe
from potstill.recipe.across_tokenizers import crossing_loss
from potstill.recipe.conversations import Conversations
from potstill.recipe.corpus import Corpus


def measured_amounts(recipe: Recipe, tokenizer: Any = None) -> Amounts | str:
    """The amounts of a recipe's corpus, as far as it is on this machine.

    Args:
        recipe: the recipe.
        tokenizer: the tokenizer of its run; None: it is looked for on this machine.

    Returns:
        The amounts; or a sentence that says why the corpus was not measured.
    """
    corpus = recipe.corpus
    try:
        tokenizer = local_tokenizer(recipe) if tokenizer is None else tokenizer
        if isinstance(corpus, Corpus):
            return _of_text(recipe, corpus, tokenizer)
        tokenizer = trained_tokenizer(recipe) if tokenizer is None else tokenizer
        if tokenizer is None:
            return "the tokenizer is not on this machine, so no sample of the corpus was tokenized"
        if isinstance(corpus, Conversations):
            if corpus.template is not None:
                tokenizer.chat_template = chat_template(tokenizer, corpus).text
            return measured_chats(recipe, corpus, tokenizer)
        return measured_questions(recipe, corpus, tokenizer)
    except (UserError, OSError) as error:
        return f"the corpus was not measured: {error}"


def _of_text(recipe: Recipe, corpus: Corpus, tokenizer: Any) -> Amounts:
    named = recipe.teachers.items() if crossing_loss(recipe) is not None else ()
    found = {name: tokenizer_of(name, teacher) for name, teacher in named}
    teachers = {name: Encoder(one, ()).encode for name, one in found.items() if one is not None}
    if tokenizer is None:
        return measured_text(recipe, corpus, None, 0 if corpus.separator == "" else 1, teachers)
    separator = len(separator_ids(tokenizer, corpus.separator))
    return measured_text(recipe, corpus, Encoder(tokenizer, ()).encode, separator, teachers)
