"""teachers: find, convert and pin every teacher, and make sure that all of them speak the same tokens."""

from potstill import ready
from potstill.console import say, size
from potstill.pipeline import Made, Work
from potstill.teachers.huggingface import prepare
from potstill.text.tokenizers import check_same_tokens


def run(work: Work) -> Made:
    """Prepare each teacher in a folder of its name."""
    folders = [prepare(name, teacher, work.folder / name) for name, teacher in work.recipe.teachers.items()]
    teachers = ready.existing_teachers(work)
    first, *others = teachers
    for other in others:
        check_same_tokens(first.tokenizer(), other.tokenizer(), f"teachers.{first.name}", f"teachers.{other.name}")
    summary = {}
    for teacher, folder in zip(teachers, folders, strict=True):
        kept = sum(file.stat().st_size for file in folder.iterdir())
        say(f"  {teacher.name}: {teacher.parameters():,} parameters, {size(kept)} in the run folder")
        summary[teacher.name] = {"parameters": teacher.parameters(), "fingerprint": teacher.fingerprint}
    return Made(folders, summary | {"made": f"{', '.join(summary)}: found, pinned, ready to load"})
