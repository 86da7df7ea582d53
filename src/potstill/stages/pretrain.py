"""pretrain: train the teachers that do not exist yet, each by cross-entropy on the run's own corpus.

Makes `pretrain/NAME/model/`, a plain Hugging Face folder, and `log.jsonl`. Each teacher is a step of its own, so a
change of one teacher does not repeat the others.
"""

from pathlib import Path

from potstill import distributed
from potstill.console import say
from potstill.losses.loss import Loss
from potstill.models.blueprint import check_blueprint
from potstill.models.from_scratch import from_scratch
from potstill.models.size import check_length
from potstill.pipeline import artifacts, training_data
from potstill.pipeline.work import Made, Work
from potstill.recipe import Recipe
from potstill.recipe.distributed import training_fields
from potstill.teachers.prepare import prepare_trained
from potstill.training.arguments import check_training, training_arguments
from potstill.training.fit import Fit, fit
from potstill.training.memory import check_parameters


def run(work: Work) -> Made:
    """Train one teacher."""
    name = work.step.name
    assert name is not None
    teacher, key = work.recipe.pretrain[name], f"pretrain.{name}"
    model = from_scratch(
        teacher.config, f"{key}.config", artifacts.tokenizer(work), artifacts.vocabulary_size(work), teacher.seed
    )
    corpus = work.recipe.corpus
    length = getattr(corpus, "teacher_length", None) or corpus.sequence_length
    check_length(model.config, length, f"teacher {name!r}", "corpus.sequence_length")
    say(f"  {sum(weight.numel() for weight in model.parameters()):,} parameters")
    training = Fit(
        folder=work.folder,
        run_folder=work.run.folder,
        title=f"training {work.step}",
        start=model,
        data=training_data.for_teacher(work, teacher.seed),
        losses=[Loss("cross_entropy")],
        training=training_fields(work.recipe, teacher.training),
        key=f"{key}.training",
        seed=teacher.seed,
        keep=teacher.keep,
        tokenizer=artifacts.tokenizer(work),
        teacher_tokenizer=artifacts.compared_tokenizer(work),
        saved_as="model",
    )
    outputs, summary = fit(training)
    if distributed.is_first():
        prepare_trained(work.folder / "model")
    return Made(outputs, summary)


def check(recipe: Recipe) -> None:
    """Refuse a configuration that makes no model or is too large, and fields of `training`."""
    length = getattr(recipe.corpus, "teacher_length", None) or recipe.corpus.sequence_length
    for name, teacher in recipe.pretrain.items():
        key = f"pretrain.{name}.config"
        count = check_blueprint(teacher.config, key, None, length)
        fields = training_fields(recipe, teacher.training)
        training = training_arguments(fields, f"pretrain.{name}.training", Path(), teacher.seed)
        check_parameters(count, training, key)
        check_training(fields, f"pretrain.{name}.training", teacher.seed, teacher.keep)
