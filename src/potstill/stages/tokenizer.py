"""tokenizer: train the run's tokenizer on its training documents, or take a given one, or a teacher's first tokens.

Makes `tokenizer/`, a plain Hugging Face folder.
"""

from potstill.console import say
from potstill.data.documents import training_text
from potstill.data.tokenizers import (
    check_other_tokens,
    check_same_tokens,
    cut_tokenizer,
    read_tokenizer,
    tokenizer_fingerprint,
    train_tokenizer,
)
from potstill.files.atomic import atomic_folder
from potstill.pipeline import artifacts
from potstill.pipeline.work import Made, Work
from potstill.recipe.across_tokenizers import crossing_loss, remedy_without_crossing_loss
from potstill.recipe.tokenizer import CutTokenizer, TokenizerFile


def run(work: Work) -> Made:
    """Save the tokenizer. Every teacher must have the same tokens, or begin with the same tokens; where losses are
    across tokenizers, one of them must have others."""
    settings, teachers = work.recipe.tokenizer, artifacts.existing_teachers(work)
    assert settings is not None
    crossing = crossing_loss(work.recipe)
    if isinstance(settings, CutTokenizer):
        whole = artifacts.teacher(work, settings.teacher).tokenizer()
        tokenizer = cut_tokenizer(whole, settings.vocab_size, f"teachers.{settings.teacher}")
        made = f"the first of the {len(whole):,} of {settings.teacher}"
        # The stage `teachers` has checked that all teachers have the same tokens, if they must.
        teachers = teachers if crossing else []
    elif isinstance(settings, TokenizerFile):
        tokenizer, made = read_tokenizer(settings), "read"
    else:
        documents = training_text(work.recipe.corpus, work.folder)
        tokenizer, made = train_tokenizer(documents, settings), f"trained on {len(documents):,} documents"
    if crossing:
        check_other_tokens(crossing, tokenizer, {f"`teachers.{one.name}`": one.tokenizer() for one in teachers})
    for teacher in [] if crossing else teachers:
        remedy = remedy_without_crossing_loss(work.recipe)
        check_same_tokens(tokenizer, teacher.tokenizer(), "`tokenizer`", f"teachers.{teacher.name}", remedy)
    folder = work.folder / "tokenizer"
    with atomic_folder(folder) as partial:
        tokenizer.save_pretrained(partial)
    say(f"  {len(tokenizer):,} tokens")
    summary = {"vocabulary": len(tokenizer), "fingerprint": tokenizer_fingerprint(tokenizer)}
    return Made([folder], summary | {"made": f"{len(tokenizer):,} tokens, {made}"})
