"""Recipe inputs: the values of a recipe that each step depends on. A changed value repeats exactly these steps.

The module imports nothing heavy, because the table of stages uses it.
"""

from typing import TYPE_CHECKING, Any

from potstill.recipe.across_tokenizers import crossing_loss, keeps_documents
from potstill.recipe.precision import teachers_in_format
from potstill.recipe.row_rules import rules, teaches_by_row, without_cross_entropy

if TYPE_CHECKING:
    from potstill.recipe import Recipe


INTERVALS = 2
"""The version of the way in which intervals are computed. If it changes, all steps with intervals are repeated."""

PROMPTS = ("template", "template_kwargs", "date", "sequence_length", "teacher")
"""The keys of the corpus that decide what a model reads of a conversation."""


def training_text(recipe: "Recipe") -> Any:
    """The keys of the corpus that decide the training text, without those that cut it into samples."""
    keys = {"sources", "cleaning", "held_out"}
    if recipe.asks or recipe.chats:
        keys = {"questions" if recipe.asks else "conversations", "validation", "train", "held_out"}
    return recipe.corpus.model_dump(mode="json", by_alias=True, include=keys)


def references(recipe: "Recipe") -> dict[str, Any]:
    """That references of questions need no number, where it is so."""
    return {"answers.number": False} if recipe.asks and not recipe.answers.number else {}


def teacher_answers(recipe: "Recipe") -> dict[str, Any]:
    """How a teacher writes the training answers, and in which prompt."""
    given = recipe.generate
    assert given is not None
    # What conversations are by themselves is said by the corpus.
    prompt = None if recipe.chats and given.strategy == "base" else recipe.all_strategies[given.strategy].teacher
    return {"generate": given, "generate.strategy": prompt}


def teacher_model(teacher: Any) -> Any:
    """The keys that decide which model a teacher is. A served one is the same at any address, however it is asked."""
    how = (
        ("server", "key", "concurrency", "timeout", "requests_per_second", "price")
        if hasattr(teacher, "server")
        else ()
    )
    return section_without(teacher, "weight", "when", *how)


def teacher_weights(recipe: "Recipe") -> dict[str, float]:
    """The weight of each teacher in the mixture of teachers."""
    return {name: teacher.weight for name, teacher in recipe.all_teachers.items()}


def teacher_rows(recipe: "Recipe") -> dict[str, Any]:
    """Which rows each teacher teaches, if not all of them, and the losses from which the others would learn nothing."""
    if not teaches_by_row(recipe):
        return {}
    given = {name: section_without(when) for name, when in rules(recipe).items()}
    return {"teachers.when": given, "without cross_entropy": without_cross_entropy(recipe)}


def alignment(recipe: "Recipe") -> dict[str, bool]:
    """Whether the student's text is aligned with the tokens of teachers, which need not be its own."""
    return {} if crossing_loss(recipe) is None else {"teacher of another tokenizer": True}


def kept_documents(recipe: "Recipe") -> dict[str, str]:
    """Whether the corpus keeps the text of documents, which a capture of spans reads."""
    return {"capture.keep": "spans"} if keeps_documents(recipe) else {}


def capture(recipe: "Recipe") -> Any:
    """What is kept of the teachers' targets. Those of another run are the same at any place."""
    kept = section_without(recipe.capture, "batch_size", "store")
    return kept | {"store": True} if recipe.capture is not None and recipe.capture.store is not None else kept


def random_offset(recipe: "Recipe") -> dict[str, bool]:
    """The key of the corpus that acts during training and does not change the corpus on disk."""
    return {"corpus.random_offset": getattr(recipe.corpus, "random_offset", False)}


def teacher_training(recipe: "Recipe", name: str) -> dict[str, Any]:
    """The inputs of a teacher's training. Its weight in the mixture is an input of the student's training."""
    asked = {"strategies": strategies_in_use(recipe), **sequence_lengths(recipe)} if recipe.asks else {}
    own = section_without(recipe.pretrain[name], "weight", "when")
    return {f"pretrain.{name}": own | random_offset(recipe) | asked, **precision(recipe)}


def strategies_in_use(recipe: "Recipe") -> dict[str, Any]:
    """All strategies in use. They decide together which tokens are learned: the longest of their prompts decides how
    many remain for an answer."""
    return {
        sample_set.strategy: recipe.all_strategies[sample_set.strategy] for sample_set in recipe.sample_sets.values()
    }


def sequence_lengths(recipe: "Recipe") -> dict[str, Any]:
    """The limits of a sample's length, in tokens."""
    names = ("sequence_length", "teacher_length") if recipe.asks else ("sequence_length",)
    return {f"corpus.{name}": getattr(recipe.corpus, name) for name in names}


def answer_settings(recipe: "Recipe") -> dict[str, Any]:
    """How every model is asked. The prompt of questions counts by its content, not by its strategy's name."""
    how = section_without(recipe.answers, "batch_size", "teachers", "strategy", "number", "sentences")
    if recipe.chats:
        return {
            "answers": how,
            **chat_settings(recipe, "template", "template_kwargs", "date", "sequence_length", "teacher"),
        }
    return {"answers": how | {"prompt": recipe.all_strategies[recipe.answers.strategy].student}}


def held_out_turns(recipe: "Recipe") -> dict[str, Any]:
    """How held-out conversations become samples. All of their turns are judged, whichever ones are learned."""
    if not recipe.chats:
        return {}
    return chat_settings(recipe, *PROMPTS, "too_long", "reasoning", "tool_calls")


def chat_settings(recipe: "Recipe", *names: str) -> dict[str, Any]:
    """Settings of the corpus by which conversations become samples."""
    given = recipe.corpus.model_dump(mode="json", by_alias=True, include=set(names))
    return {f"corpus.{name}": given[name] for name in names}


def answer_metrics(recipe: "Recipe") -> dict[str, Any]:
    """How answers are judged, unless by a number."""
    if not recipe.has_answers or recipe.judges_numbers:
        return {}
    return {"answers.number": False, "answers.sentences": recipe.answers.sentences}


def student_start(recipe: "Recipe") -> dict[str, Any]:
    """The inputs of a start: how it is built, and how it is measured."""
    asked = {"strategies": first_student_prompt(recipe)} if recipe.asks else {}
    made_of = {"student": recipe.student, "corpus.sequence_length": recipe.corpus.sequence_length}
    return {**made_of, **start_precision(recipe), **precision(recipe), **asked}


def first_student_prompt(recipe: "Recipe") -> Any:
    """The prompt of the first student (questions only)."""
    return recipe.all_strategies[recipe.sample_set_of(recipe.first_variant).strategy].student


def student_training(recipe: "Recipe", name: str | None) -> dict[str, Any]:
    """The inputs of a student's training, under the keys of a recipe with one student."""
    given = recipe.distil.model_copy(update={"losses": recipe.losses_of(name)})
    on_policy = recipe.on_policy_of(name)
    return {
        "distil": section_without(given, "on_policy", *_unused_snapshots(recipe)),
        # The student is the same, whatever is said of it beforehand.
        **({"distil.on_policy": section_without(on_policy, "preflight")} if on_policy is not None else {}),
        "teachers.weight": teacher_weights(recipe),
        **precision(recipe),
        **random_offset(recipe),
        **adapter_settings(recipe),
    }


def search_trials(recipe: "Recipe") -> dict[str, Any]:
    """The inputs of a search's trials. Trials always keep their best weights, so `keep` is no input."""
    of_students = student_training(recipe, recipe.tried_on)
    given = {key: value for key, value in of_students["distil"].items() if key not in ("keep", "snapshots")}
    of_students.pop("distil.on_policy", None)
    return {"search": recipe.search, **of_students, "distil": given}


def control_training(recipe: "Recipe") -> dict[str, Any]:
    """The inputs of the control's training."""
    distil = section_without(recipe.distil, "losses", "mix", "reduction", "on_policy", *_unused_snapshots(recipe))
    return {
        "control": recipe.control,
        "distil": distil,
        **precision(recipe),
        **random_offset(recipe),
        **adapter_settings(recipe),
    }


def snapshot_selection(recipe: "Recipe") -> dict[str, Any]:
    """The inputs of a selection among snapshots: the rule, its metrics, and the confidence that it needs."""
    assert recipe.select is not None
    measured = recipe.evaluate
    pairs = {name: given for name, given in measured.minimal_pairs.items() if name in selection_metrics(recipe)}
    own = {metric.partition("/")[0] for metric in selection_metrics(recipe)}
    prompts = {name: given for name, given in measured.continuations.items() if name in own}
    tasks = measured.tasks if any("/" in metric for metric in selection_metrics(recipe)) else []
    sure = {f"evaluate.{key}": getattr(recipe.evaluate, key) for key in ("confidence", "resamples")}
    merge = {"student.merge": recipe.student.merge} if recipe.student.adapter else {}
    shape = {"corpus.sequence_length": recipe.corpus.sequence_length}
    return {
        "select": recipe.select,
        "evaluate.minimal_pairs": pairs,
        "evaluate.tasks": tasks,
        "evaluate.continuations": prompts,
        **sure,
        "intervals": INTERVALS,
        **shape,
        **precision(recipe),
        **quantization(recipe),
        **merge,
    }


def exported_student(recipe: "Recipe") -> dict[str, Any]:
    """How an exported student is measured. What it is follows from the steps that made it."""
    asked = ("documents", "confidence", "resamples")
    measured = {f"evaluate.{key}": getattr(recipe.evaluate, key) for key in asked}
    written = {"answers.max_new_tokens": recipe.answers.max_new_tokens} if recipe.has_answers else {}
    shape = {"corpus.sequence_length": recipe.corpus.sequence_length}
    return {
        **measured,
        **written,
        **shape,
        "intervals": INTERVALS,
        **held_out_turns(recipe),
        **adapter_settings(recipe),
    }


def selection_metrics(recipe: "Recipe") -> list[str]:
    """The metrics, other than the loss, that select snapshots. Half of their items select; the others are reported."""
    return [] if recipe.select is None else [metric for metric in recipe.select.by if metric != "loss"]


def _unused_snapshots(recipe: "Recipe") -> tuple[str, ...]:
    """The key to leave out if a training keeps no snapshots: its inputs then equal those of older versions."""
    return () if recipe.distil.snapshots else ("snapshots",)


def checkpoint_start(recipe: "Recipe") -> dict[str, str]:
    """A student from a checkpoint is compared with its teacher on tokens, and not on all logits of the head."""
    return {"student.start": recipe.student.start} if recipe.student.start == "checkpoint" else {}


def precision(recipe: "Recipe") -> dict[str, Any]:
    """The number format of every model that a step loads or trains."""
    return {"precision": recipe.precision}


def teacher_precision(recipe: "Recipe") -> dict[str, Any]:
    """The run's number format, if a teacher has it. A capture of teachers with formats of their own stays as it is."""
    return precision(recipe) if teachers_in_format(recipe) else {}


def start_precision(recipe: "Recipe") -> dict[str, Any]:
    """The number format in which the start is saved, if it is not float32."""
    return {"distil.training.bf16": True} if recipe.start_in_bfloat16 else {}


def quantization(recipe: "Recipe") -> dict[str, Any]:
    """The quantisation with which the start is loaded. The start on disk does not change."""
    return {"student.quantization": recipe.student.quantization} if recipe.student.quantization else {}


def adapter_settings(recipe: "Recipe") -> dict[str, Any]:
    """The adapter, if one is trained instead of the start itself, and the quantisation."""
    student = recipe.student
    adapter = {"student.adapter": student.adapter, "student.merge": student.merge} if student.adapter else {}
    return adapter | quantization(recipe)


def section_without(section: Any, *left_out: str) -> Any:
    """A section as JSON values, without the keys that do not change the result."""
    return section and section.model_dump(mode="json", by_alias=True, exclude=set(left_out))
