"""student: build the student as it is before training, and say what it is."""

from potstill import ready
from potstill.console import say
from potstill.files import remove
from potstill.pipeline import Made, Work
from potstill.students.adapters import check_can_merge, with_adapter
from potstill.students.build import build
from potstill.teachers.huggingface import Prepared, check_length


def run(work: Work) -> Made:
    """Write the student's start as a plain Hugging Face folder, tokenizer included."""
    recipe = work.recipe
    teachers = {teacher.name: teacher for teacher in _teachers(work)}
    tokenizer = ready.tokenizer(work)
    model, summary = build(recipe.student, teachers, tokenizer, ready.vocabulary(work))
    check_length(model.config, recipe.corpus.sequence_length, "the student", "corpus.sequence_length")
    partial, folder = work.folder / ".start.partial", work.folder / "start"
    remove(partial)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    summary["parameters"] = sum(weight.numel() for weight in model.parameters())
    summary["layers"] = model.config.num_hidden_layers
    say(f"  {summary['parameters']:,} parameters in {summary['layers']} layers")
    if recipe.student.adapter is not None:
        # Tried on before teachers are run for hours: what it names may not be there.
        adapted = with_adapter(model, recipe.student.adapter, seed=0)
        if recipe.student.merge:
            check_can_merge(adapted)
        summary["trained_parameters"], _ = adapted.get_nb_trainable_parameters()
        say(f"  {summary['trained_parameters']:,} parameters in an adapter upon them")
    remove(folder)
    partial.rename(folder)
    if "layers_kept" in summary:
        say(f"  layers kept: {', '.join(map(str, summary['layers_kept']))}")
    kept = f": {', '.join(map(str, summary['layers_kept']))}" if "layers_kept" in summary else ""
    summary["made"] = f"{summary['layers']} layers of {summary['from']}{kept}"
    return Made([folder], summary)


def _teachers(work: Work) -> list[Prepared]:
    """Those that can be pruned: one that is trained here, only if the student comes from it."""
    of = getattr(work.recipe.student, "teacher", None)
    return ready.teachers(work) if of in work.recipe.pretrain else ready.existing_teachers(work)
