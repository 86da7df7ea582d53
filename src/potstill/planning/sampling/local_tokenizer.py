"""Local tokenizer: the tokenizer of a recipe before its run, where it is on this machine, or can be trained here.

Nothing is downloaded.
"""

from typing import Any

from potstill.data.documents import training_text
from potstill.data.tokenizers import cut_tokenizer, read_tokenizer, train_tokenizer
from potstill.errors import UserError
from potstill.files.installed_packages import package_files
from potstill.files.named_data import named_data
from potstill.files.named_files import named_path
from potstill.models.pretrained import ModelSource
from potstill.planning.sampling.estimate import drawn
from potstill.planning.sampling.local_files import check_size, local_files
from potstill.recipe import Recipe
from potstill.recipe.conversations import Conversations
from potstill.recipe.questions import Questions
from potstill.recipe.teachers import (
    Llama2cTeacher,
    NamedAtServer,
    NamedTeacher,
    PackagedTeacher,
    PotstillTeacher,
    Teacher,
)
from potstill.recipe.tokenizer import CutTokenizer, TokenizerFile, TrainedTokenizer
from potstill.teachers import llama2c

HERE = {"local_files_only": True}
TEXTS = 20_000
"""The greatest number of questions or conversations on which a tokenizer is trained for a plan: some seconds."""


def local_tokenizer(recipe: Recipe) -> Any:
    """The tokenizer that the run will have; None if it is not on this machine, or if the run trains it.

    Raises:
        UserError: it is here and cannot be loaded.
    """
    settings = recipe.tokenizer
    if isinstance(settings, TokenizerFile):
        return read_tokenizer(settings)
    if isinstance(settings, CutTokenizer):
        whole = tokenizer_of(settings.teacher, recipe.teachers[settings.teacher])
        return None if whole is None else cut_tokenizer(whole, settings.vocab_size, f"teachers.{settings.teacher}")
    if settings is not None or not recipe.teachers:
        return None
    return tokenizer_of(*next(iter(recipe.teachers.items())))


def trained_tokenizer(recipe: Recipe) -> Any:
    """The tokenizer that the run will train, where its corpus is questions or conversations on this machine; None of
    another corpus, and where a part of it has too little text for so many tokens.

    Raises:
        UserError: a source is not on this machine or too large, or is wrong as `training_text` says; or all of it has
            too little text.
    """
    settings, corpus = recipe.tokenizer, recipe.corpus
    if not isinstance(settings, TrainedTokenizer) or not isinstance(corpus, Questions | Conversations):
        return None
    name = "questions" if isinstance(corpus, Questions) else "conversations"
    check_size(local_files(getattr(corpus, name), f"corpus.{name}"), f"corpus.{name}")
    texts = training_text(corpus)
    some = [texts[place] for place in drawn(len(texts), TEXTS)]
    try:
        return train_tokenizer(some, settings)
    except UserError:
        if len(some) == len(texts):
            # The run would say the same.
            raise
        return None


def tokenizer_of(name: str, teacher: Teacher) -> Any:
    """The tokenizer of a teacher; None if it is not on this machine.

    Raises:
        UserError: it is here and cannot be loaded.
    """
    key = f"teachers.{name}"
    if isinstance(teacher, PackagedTeacher):
        file = package_files(teacher.package, teacher.gguf, key, "gguf")[0]
        return ModelSource(str(file.parent), f"`{key}`", {"gguf_file": file.name}).tokenizer()
    if isinstance(teacher, Llama2cTeacher):
        config = llama2c.read_shape(named_path(teacher.llama2c), f"{key}.llama2c").config
        return llama2c.read_tokenizer(named_path(teacher.tokenizer), f"{key}.tokenizer", config.vocab_size)
    if isinstance(teacher, NamedTeacher):
        found = [named_data(teacher.data).on_this_machine(split) for split in ("model", "tokenizer")]
        if None in found:
            return None
        (model, _), (file, _) = (one[0] for one in found if one is not None)
        config = llama2c.read_shape(model, f"{key}.data").config
        return llama2c.read_tokenizer(file, f"{key}.data", config.vocab_size)
    if isinstance(teacher, PotstillTeacher):  # its server tells its tokenizer
        return None
    if isinstance(teacher, NamedAtServer):
        return _of_repository(ModelSource(teacher.tokenizer or teacher.model, f"`{key}.tokenizer`", HERE))
    how = {"revision": teacher.revision} | ({"gguf_file": teacher.gguf} if teacher.gguf else {})
    return _of_repository(ModelSource(teacher.model, f"`{key}`", how | HERE))


def _of_repository(source: ModelSource) -> Any:
    try:
        return source.tokenizer()
    except UserError:
        if source.folder is not None:
            raise
        # A model of the hub that is not in its cache.
        return None
