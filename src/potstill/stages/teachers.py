"""teachers: find, convert and pin every teacher, and make sure that all of them speak the same tokens."""

from potstill.console import say, size
from potstill.losses.vocabulary import shared_vocabulary
from potstill.pipeline import Made, Work
from potstill.teachers.huggingface import Prepared, prepare
from potstill.text.tokenizers import check_same_tokens


def run(work: Work) -> Made:
    """Prepare each teacher in a folder of its name."""
    folders = [prepare(name, teacher, work.folder / name) for name, teacher in work.recipe.teachers.items()]
    teachers = prepared(work)
    first, *others = teachers
    for other in others:
        check_same_tokens(first.tokenizer(), other.tokenizer(), f"teachers.{first.name}", f"teachers.{other.name}")
    summary = {}
    for teacher, folder in zip(teachers, folders, strict=True):
        kept = sum(file.stat().st_size for file in folder.iterdir())
        say(f"  {teacher.name}: {teacher.parameters():,} parameters, {size(kept)} in the run folder")
        summary[teacher.name] = {"parameters": teacher.parameters(), "fingerprint": teacher.fingerprint}
    return Made(folders, summary | {"made": f"{', '.join(summary)}: found, pinned, ready to load"})


def prepared(work: Work) -> list[Prepared]:
    """All teachers of a run, made ready before."""
    return [Prepared.load(work.run.path("teachers") / name) for name in work.recipe.teachers]


def compared_vocabulary(work: Work) -> int | None:
    """The number of ids that student and teachers are compared on: their tokens; None: all that their heads have.

    A student that is made of its teacher, or in its likeness, has its head, padding included. A checkpoint and several
    teachers may be padded to other sizes; `run` and the stage `student` have proven that they have the same tokens.
    """
    teachers = prepared(work)
    rows = [teacher.config().get_text_config().vocab_size for teacher in teachers]
    if work.recipe.student.start != "checkpoint" and len(set(rows)) == 1:
        return None
    tokenizer = teachers[0].tokenizer()
    return min(*rows, shared_vocabulary(tokenizer, tokenizer))
