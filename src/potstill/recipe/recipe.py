"""Recipe: one file that declares the models, the data, the training and the evaluation of a run."""

import difflib
from typing import Annotated

from pydantic import Field, Tag, model_validator

from potstill.recipe.answers import Answers
from potstill.recipe.candidates import Candidate
from potstill.recipe.capture import Capture
from potstill.recipe.corpus import Corpus
from potstill.recipe.distil import Control, Distil, GivenLoss, HiddenMatch, temperatures
from potstill.recipe.evaluate import Evaluate
from potstill.recipe.experiments import Experiment, SampleSet
from potstill.recipe.generate import Generate
from potstill.recipe.pretrain import Pretrained
from potstill.recipe.questions import Questions
from potstill.recipe.search import Search, setting_of
from potstill.recipe.section import Name, Section, told_apart_by
from potstill.recipe.select import LOSS, Select
from potstill.recipe.strategies import SHIPPED, Strategy
from potstill.recipe.student import FromTeacher, Student
from potstill.recipe.teachers import Teacher
from potstill.recipe.tokenizer import CutTokenizer, Tokenizer

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Recipe(Section):
    """A whole run: one section for each stage, in the order of the stages."""

    about: str
    """One sentence about the recipe, for `potstill recipes` and the head of the report."""

    teachers: dict[Name, Teacher] = Field(default_factory=dict)
    """The teachers: models that exist already, by names of your choice."""

    tokenizer: Tokenizer | None = None
    """The tokenizer of the whole run. Default: the first teacher's."""

    corpus: Annotated[
        Annotated[Corpus, Tag("<sources>")] | Annotated[Questions, Tag("<questions>")],
        told_apart_by("sources", "questions"),
    ]
    """The training data: text, or questions and their answers."""

    pretrain: dict[Name, Pretrained] = Field(default_factory=dict)
    """Teachers that are trained here, on the same text, before they teach; by names of your choice."""

    strategies: dict[Name, Strategy] = Field(default_factory=dict)
    """Your own strategies, by names of your choice: each gives a prompt to the teacher and a prompt to the student
    (questions only). The strategies base, teacher, ground-truth and confidence exist already."""

    generate: Generate | None = None
    """Let a teacher write the training answers (questions only). Default: the training answers are the reference
    solutions."""

    student: Student
    """The student before training."""

    capture: Capture | None = None
    """Run the teacher once and keep its distributions on disk. Default, or `null`: the teacher runs beside the
    student."""

    search: Search | None = None
    """Find the divergence's share of the loss, and its temperature, before the students are trained. Default: both are
    taken from `distil.losses`."""

    distil: Distil
    """How the student is trained."""

    experiments: dict[Name, Experiment] = Field(default_factory=dict)
    """Several students, by names of your choice, each with the settings in which it differs. Default: one student
    without a name."""

    control: Control | None = Control()
    """The control: the same start and tokens, but cross-entropy only. `null` leaves it out, and the report says so."""

    select: Select | None = None
    """How the student and the control are chosen from `distil.snapshots`. Default: `distil.keep` decides."""

    answers: Answers = Answers()
    """How every model answers the held-out questions (questions only)."""

    evaluate: Evaluate = Evaluate()
    """The measurements and their data."""

    seeds: list[Seed] = Field([0], min_length=1)
    """The student and the control are trained once for each seed. Default: [0]."""

    @property
    def all_teachers(self) -> dict[str, Teacher | Pretrained]:
        """All teachers: first those of `teachers`, then those of `pretrain`."""
        return {**self.teachers, **self.pretrain}

    @property
    def start_in_bfloat16(self) -> bool:
        """Whether the start is stored in bfloat16. That loses nothing under an adapter with bf16: the start is not
        trained."""
        student = self.student
        return (
            student.adapter is not None
            and student.quantization is None
            and self.distil.training.get("bf16") is True
            and not any(student.adapter.get(key) for key in ("modules_to_save", "trainable_token_indices"))
            and student.adapter.get("bias", "none") == "none"
        )

    @property
    def asks(self) -> bool:
        """Whether the corpus has questions."""
        return isinstance(self.corpus, Questions)

    @property
    def all_strategies(self) -> dict[str, Strategy]:
        """The shipped strategies and the recipe's own."""
        return {**SHIPPED, **self.strategies}

    @property
    def variants(self) -> dict[str | None, Experiment]:
        """The students by name. A single student has the name None."""
        names: list[str | None] = [*self.experiments] or [None]
        return {name: Experiment() if name is None else self.experiments[name] for name in names}

    @property
    def first_variant(self) -> str | None:
        """The student whose samples train the control."""
        return next(iter(self.variants))

    def sample_set_of_candidate(self, trained: Candidate) -> SampleSet:
        """The sample set of a student or of the control (questions only)."""
        return self.sample_set_of(self.first_variant if trained.role == "control" else trained.name)

    def sample_set_of(self, variant: str | None) -> SampleSet:
        """The sample set of a student (questions only)."""
        given = self.variants[variant]
        named = variant if variant is not None and variant in self.all_strategies else "base"
        return SampleSet(given.strategy or named, given.targets == "own")

    @property
    def sample_sets(self) -> dict[str, SampleSet]:
        """The sample sets of all students, by name; empty where the corpus is text."""
        found = [self.sample_set_of(variant) for variant in self.variants] if self.asks else []
        return {sample_set.name: sample_set for sample_set in found}

    def losses_of(self, variant: str | None) -> list[GivenLoss]:
        """The losses of a student in the recipe. `search` may change their setting."""
        return self.variants[variant].losses or self.distil.losses

    def is_searched(self, variant: str | None) -> bool:
        """Whether a student is trained with the setting that `search` finds."""
        return self.search is not None and not self.variants[variant].losses

    @property
    def tried_on(self) -> str | None:
        """The student whose samples train the trials of `search`."""
        assert self.search is not None
        return self.search.experiment or next(name for name in self.variants if self.is_searched(name))

    def temperatures_of(self, sample_set: str | None) -> list[float]:
        """The temperatures at which the students of a sample set read the teachers. None stands for all students."""
        wanted = [name for name in self.variants if sample_set is None or self.sample_set_of(name).name == sample_set]
        found = {temperature for name in wanted for temperature in temperatures(self.losses_of(name))}
        if any(self.is_searched(name) for name in wanted):
            assert self.search is not None
            found.update(self.search.temperatures or [])
        return sorted(found)

    @property
    def most_temperatures(self) -> list[float]:
        """The temperatures of the student that reads the teachers at the most temperatures."""
        return max((temperatures(self.losses_of(name)) for name in self.variants), key=len)

    @model_validator(mode="after")
    def _asks_what_there_is(self) -> "Recipe":
        asked = {f"experiments.{name}.strategy": given.strategy for name, given in self.experiments.items()}
        asked["answers.strategy"] = self.answers.strategy
        if self.generate is not None:
            asked["generate.strategy"] = self.generate.strategy
            if self.generate.by not in self.all_teachers:
                raise ValueError(
                    f"`generate.by`: {self.generate.by!r} is none of the teachers, {', '.join(self.all_teachers)}"
                )
        for key, strategy in asked.items():
            if strategy is not None and strategy not in self.all_strategies:
                near = difflib.get_close_matches(strategy, self.all_strategies, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(self.all_strategies)}"
                raise ValueError(f"`{key}`: there is no strategy {strategy!r} under `strategies`; {hint}")
        return self

    @model_validator(mode="after")
    def _asks_only_questions(self) -> "Recipe":
        if self.asks:
            return self
        given = [key for key in ("strategies", "generate") if getattr(self, key)]
        given += ["answers"] if self.answers != Answers() else []
        for name, experiment in self.experiments.items():
            given += [f"experiments.{name}.strategy"] if experiment.strategy is not None else []
            given += [f"experiments.{name}.targets"] if experiment.targets != "own" else []
        if given:
            raise ValueError(
                f"`{given[0]}` is for questions, and `corpus` is text; give `corpus.questions`, or remove it"
            )
        return self

    @model_validator(mode="after")
    def _has_teachers(self) -> "Recipe":
        if not self.all_teachers:
            raise ValueError("there is no teacher; name one under `teachers`, or one to train under `pretrain`")
        if both := sorted(self.teachers.keys() & self.pretrain.keys()):
            raise ValueError(f"`pretrain.{both[0]}`: `teachers` has that name already; choose another")
        if not self.teachers and self.tokenizer is None:
            raise ValueError(
                "`tokenizer` is missing: no teacher brings one; train one, `tokenizer: {vocab_size: 16000}`"
            )
        return self

    @model_validator(mode="after")
    def _cuts_what_there_is(self) -> "Recipe":
        if isinstance(self.tokenizer, CutTokenizer) and self.tokenizer.teacher not in self.teachers:
            there_are = f"`teachers`, {', '.join(self.teachers)}" if self.teachers else "`teachers`: there are none"
            raise ValueError(f"`tokenizer.teacher`: {self.tokenizer.teacher!r} is none of the {there_are}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if isinstance(self.student, FromTeacher) and self.student.teacher not in self.all_teachers:
            raise ValueError(
                f"`student.from`: {self.student.teacher!r} is none of the teachers, {', '.join(self.all_teachers)}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("`seeds`: one is named twice, and the same run again would be no evidence; remove it")
        for variant in self.variants:
            if not any(loss.kind != "cross_entropy" and loss.weight > 0 for loss in self.losses_of(variant)):
                raise ValueError(
                    f"`{self._losses_key(variant)}`: none is a divergence with a weight above 0, so no teacher would "
                    "be used; add one"
                )
        return self

    @model_validator(mode="after")
    def _searches_what_there_is(self) -> "Recipe":
        search = self.search
        if search is None:
            return self
        if search.experiment is not None and search.experiment not in self.experiments:
            there_are = f"there are {', '.join(self.experiments)}" if self.experiments else "there are none; remove it"
            raise ValueError(f"`search.experiment`: {search.experiment!r} is none of the `experiments`; {there_are}")
        if not any(map(self.is_searched, self.variants)):
            raise ValueError(
                "`search` finds a setting of `distil.losses`, and every experiment has losses of its own; remove it"
            )
        if not self.is_searched(self.tried_on):
            raise ValueError(
                f"`search.experiment`: {search.experiment!r} has losses of its own, and what is searched is a setting "
                "of `distil.losses`; choose another"
            )
        if self.corpus.validation is None:
            raise ValueError("`search` goes by `corpus.validation`, which is missing; say how much is set aside")
        given = setting_of(self.distil.losses)
        if given is None:
            kinds = ", ".join(loss.kind for loss in self.distil.losses)
            raise ValueError(
                "`search` shares out the loss between one cross_entropy and one divergence, and `distil.losses` are "
                f"{kinds}; give it these two, or remove `search`"
            )
        if search.share is None and search.temperatures == [given.temperature]:
            raise ValueError(
                f"`search.temperatures`: {given.temperature:g} is what `distil.losses` have already, so there is "
                "nothing to choose from; name another one, or search `share`"
            )
        several = {given.temperature, *(search.temperatures or [])} != {given.temperature}
        if self.capture is not None and self.capture.keep in ("sample", "hybrid") and several:
            raise ValueError(
                f"`search.temperatures`: `capture.keep: {self.capture.keep}` is read at one temperature; use `top_k` "
                "or `hidden`, leave `capture` out, or search `share` alone"
            )
        return self

    @model_validator(mode="after")
    def _chooses_from_what_there_is(self) -> "Recipe":
        if self.select is None:
            return self
        if self.distil.snapshots is None:
            raise ValueError("`select` chooses from snapshots, and none are kept; say how many, `distil.snapshots: 30`")
        if self.distil.keep == "best":
            raise ValueError(
                "`distil.keep: best` and `select` both say which weights are the student; leave one of the two out"
            )
        if LOSS in self.select.by and self.corpus.validation is None:
            raise ValueError(
                "`select.by: loss` goes by `corpus.validation`, which is missing: what is reported on must not be "
                "chosen on; say how many sequences"
            )
        continued = [f"{name}/{each}" for name, given in self.evaluate.continuations.items() for each in given.metrics]
        known = [LOSS, *([] if self.asks else [*self.evaluate.minimal_pairs, *continued])]
        # Which figures a task has, lm-eval knows; it is asked before anything is spent.
        of_tasks = "/" if self.evaluate.tasks else None
        if unknown := [one for one in self.select.by if one not in known and not (of_tasks and of_tasks in one)]:
            near = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"`select.by`: {unknown[0]!r} is measured nowhere here; {hint}")
        return self

    def _losses_key(self, variant: str | None) -> str:
        return f"experiments.{variant}.losses" if self.variants[variant].losses else "distil.losses"

    @model_validator(mode="after")
    def _samples_fit(self) -> "Recipe":
        best = [f"pretrain.{name}" for name, teacher in self.pretrain.items() if teacher.keep == "best"]
        best += ["distil"] if self.distil.keep == "best" else []
        if best and self.corpus.validation is None:
            raise ValueError(
                f"`{best[0]}.keep: best` goes by `corpus.validation`, which is missing; say how many sequences"
            )
        packed = isinstance(self.corpus, Corpus) and self.corpus.layout == "packed"
        if self.distil.reduction == "sequence" and not packed:
            raise ValueError(
                "`distil.reduction: sequence` needs `corpus.layout: packed`, whose samples have one length"
            )
        if not isinstance(self.corpus, Corpus):
            return self
        if self.corpus.random_offset and not packed:
            raise ValueError("`corpus.random_offset` needs `corpus.layout: packed`: a document has one beginning")
        if self.corpus.random_offset and self.capture is not None:
            raise ValueError(
                "`corpus.random_offset` makes other samples each epoch, and `capture` would know the first one's only; "
                "leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _engines_do_what_is_asked(self) -> "Recipe":
        llama_cpp = [name for name, teacher in self.teachers.items() if teacher.engine == "llama_cpp"]
        if not llama_cpp:
            return self
        if isinstance(self.corpus, Corpus) and self.corpus.attention == "document":
            raise ValueError(
                f"`corpus.attention: document`: `teachers.{llama_cpp[0]}.engine: llama_cpp` reads a row as one text; "
                "use `engine: transformers`, or `attention: all`"
            )
        asked = [self._losses_key(name) for name in self.variants if self._matches_layers(name)]
        asked += ["capture.keep: hidden"] if self.capture is not None and self.capture.keep == "hidden" else []
        if asked:
            raise ValueError(
                f"`{asked[0]}` needs the teacher's hidden states, and `teachers.{llama_cpp[0]}.engine: llama_cpp` "
                "gives logits only; use `engine: transformers`"
            )
        return self

    def _matches_layers(self, variant: str | None) -> bool:
        return any(isinstance(loss, HiddenMatch) for loss in self.losses_of(variant))

    @model_validator(mode="after")
    def _capture_is_enough(self) -> "Recipe":
        if self.capture is None:
            return self
        for variant in self.variants:
            self._capture_is_enough_for(variant, self.capture.keep)
        return self

    def _capture_is_enough_for(self, variant: str | None, keep: str) -> None:
        losses, key, several = self.losses_of(variant), self._losses_key(variant), len(self.all_teachers) > 1
        if any(isinstance(loss, HiddenMatch) for loss in losses):
            raise ValueError(
                f"`{key}`: hidden_match needs the teacher's layers, and `capture` keeps none of them; leave one "
                "of the two out"
            )
        if keep == "hidden":
            return
        if several and self.distil.mix == "logits":
            raise ValueError(
                f"`distil.mix: logits` needs each teacher's whole distribution, and `capture.keep: {keep}` keeps "
                "a part of it; mix probabilities, or use `keep: hidden`"
            )
        others = [loss.kind for loss in losses if loss.kind not in ("cross_entropy", "forward_kl")]
        if others and (several or keep != "top_k"):
            whose = "several teachers" if several else "a teacher"
            raise ValueError(
                f"`{key}`: {others[0]} needs the whole distribution of {whose}, and `capture.keep: {keep}` "
                "keeps a part of it; use forward_kl, or `keep: hidden`"
            )
