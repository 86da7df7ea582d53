"""Recipe: one file that declares the models, the data, the training and the evaluation of a run."""

import difflib
from typing import Annotated

from pydantic import Field, Tag, model_validator

from potstill.recipe.answers import Answers
from potstill.recipe.candidates import Candidate
from potstill.recipe.capture import Capture
from potstill.recipe.chat_strategies import differ
from potstill.recipe.conversations import Conversations
from potstill.recipe.corpus import Corpus
from potstill.recipe.distil import Control, Distil
from potstill.recipe.distributed import Distributed
from potstill.recipe.evaluate import Evaluate
from potstill.recipe.experiments import Experiment, SampleSet
from potstill.recipe.export import Export
from potstill.recipe.facts import Facts
from potstill.recipe.generate import Generate
from potstill.recipe.losses import GivenLoss, HiddenMatch, temperatures
from potstill.recipe.no_effect import complaints
from potstill.recipe.on_policy import OnPolicy
from potstill.recipe.precision import Precision, in_bfloat16
from potstill.recipe.pretrain import Pretrained
from potstill.recipe.questions import Questions
from potstill.recipe.row_rules import may_teach_together
from potstill.recipe.search import Search, check_search
from potstill.recipe.section import Name, Section, discriminated_by
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
        Annotated[Corpus, Tag("<sources>")]
        | Annotated[Questions, Tag("<questions>")]
        | Annotated[Conversations, Tag("<conversations>")],
        discriminated_by("sources", "questions", "conversations"),
    ]
    """The training data: text, questions and their answers, or conversations."""

    pretrain: dict[Name, Pretrained] = Field(default_factory=dict)
    """Teachers that are trained here, on the same text, before they teach; by names of your choice."""

    strategies: dict[Name, Strategy] = Field(default_factory=dict)
    """Your own strategies, by names of your choice: each gives a prompt to the teacher and a prompt to the student; of
    conversations, to the teacher alone. The strategies base, teacher, ground-truth and confidence exist already."""

    generate: Generate | None = None
    """Let a teacher write the training answers of questions, or turns of conversations. Default: those of the data are
    learned."""

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
    """How every model answers the held-out questions or conversations (not for text)."""

    evaluate: Evaluate = Evaluate()
    """The measurements and their data."""

    export: Export | None = None
    """Files of the student for other programs. Default: none; `potstill export RUN --to FORMAT` makes them later."""

    precision: Precision = "auto"
    """The number format in which models multiply: `bf16`, `fp32`, or `auto` (default), the faster one on this machine,
    measured when a run begins and then kept."""

    distributed: Distributed = Distributed()
    """How several ranks train one model together."""

    seeds: list[Seed] = Field([0], min_length=1)
    """The student and the control are trained once for each seed. Default: [0]."""

    facts: Facts = Facts()
    """What is known of models and text that are not on this machine. Only `potstill plan` reads it."""

    @property
    def all_teachers(self) -> dict[str, Teacher | Pretrained]:
        """All teachers: first those of `teachers`, then those of `pretrain`."""
        return {**self.teachers, **self.pretrain}

    @property
    def start_in_bfloat16(self) -> bool:
        """Whether the start is stored in bfloat16: only if an adapter leaves it fixed and multiplies it in bfloat16."""
        student = self.student
        return (
            student.adapter is not None
            and student.quantization is None
            and in_bfloat16(self.distil.training, self.precision)
            and not any(student.adapter.get(key) for key in ("modules_to_save", "trainable_token_indices"))
            and student.adapter.get("bias", "none") == "none"
        )

    @property
    def asks(self) -> bool:
        """Whether the corpus has questions."""
        return isinstance(self.corpus, Questions)

    @property
    def chats(self) -> bool:
        """Whether the corpus has conversations."""
        return isinstance(self.corpus, Conversations)

    @property
    def has_answers(self) -> bool:
        """Whether models answer: held-out questions, or held-out conversations."""
        return self.asks or self.chats

    @property
    def judges_numbers(self) -> bool:
        """Whether answers are judged by a number, and not by their similarity to a reference."""
        return self.asks and self.answers.number

    @property
    def uses_strategies(self) -> bool:
        """Whether students have samples of their strategies: of questions, and of conversations where a student has
        another strategy than `base`."""
        return self.asks or (self.chats and differ(self))

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
        """The sample set of a student or of the control, where there are some."""
        return self.sample_set_of(self.first_variant if trained.role == "control" else trained.name)

    def sample_set_of(self, variant: str | None) -> SampleSet:
        """The sample set of a student, where there are some."""
        given = self.variants[variant]
        named = variant if variant is not None and variant in self.all_strategies else "base"
        return SampleSet(given.strategy or named, given.targets == "own")

    @property
    def sample_sets(self) -> dict[str, SampleSet]:
        """The sample sets of all students, by name; empty where all of them learn the corpus's own samples."""
        found = [self.sample_set_of(variant) for variant in self.variants] if self.uses_strategies else []
        return {sample_set.name: sample_set for sample_set in found}

    def losses_of(self, variant: str | None) -> list[GivenLoss]:
        """The losses of a student in the recipe. `search` may change their setting."""
        return self.variants[variant].losses or self.distil.losses

    def on_policy_of(self, variant: str | None) -> OnPolicy | None:
        """What a student writes itself; None if it writes nothing."""
        given = self.variants[variant].on_policy or self.distil.on_policy
        return None if given is None or not given.share else given

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
    def _strategies_exist(self) -> "Recipe":
        asked = {f"experiments.{name}.strategy": given.strategy for name, given in self.experiments.items()}
        asked["answers.strategy"] = self.answers.strategy
        if self.generate is not None:
            asked["generate.strategy"] = self.generate.strategy
            if self.generate.by not in self.all_teachers:
                raise ValueError(
                    f"`generate.by`: {self.generate.by!r} is not one of the teachers: {', '.join(self.all_teachers)}"
                )
        for key, strategy in asked.items():
            if strategy is not None and strategy not in self.all_strategies:
                near = difflib.get_close_matches(strategy, self.all_strategies, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"choose one of {', '.join(self.all_strategies)}"
                raise ValueError(f"`{key}`: there is no strategy {strategy!r} under `strategies`; {hint}")
        return self

    @model_validator(mode="after")
    def _exported_students_exist(self) -> "Recipe":
        named = [] if self.export is None else self.export.experiments or []
        if unknown := next((name for name in named if name not in self.experiments), None):
            raise ValueError(
                f"`export.experiments`: {unknown!r} is not one of `experiments`: "
                f"{', '.join(self.experiments) or 'there are none'}"
            )
        return self

    @model_validator(mode="after")
    def _has_teachers(self) -> "Recipe":
        if not self.all_teachers:
            raise ValueError("there is no teacher; name one in `teachers`, or one to train in `pretrain`")
        if both := sorted(self.teachers.keys() & self.pretrain.keys()):
            raise ValueError(f"`pretrain.{both[0]}`: `teachers` has that name already; choose another")
        if not self.teachers and self.tokenizer is None:
            raise ValueError(
                "`tokenizer` is missing, and `teachers` has none; train one with `tokenizer: {vocab_size: 16000}`"
            )
        return self

    @model_validator(mode="after")
    def _teacher_of_tokenizer_exists(self) -> "Recipe":
        if isinstance(self.tokenizer, CutTokenizer) and self.tokenizer.teacher not in self.teachers:
            names = ", ".join(self.teachers) if self.teachers else "there are none"
            raise ValueError(f"`tokenizer.teacher`: {self.tokenizer.teacher!r} is not one of `teachers`: {names}")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if isinstance(self.student, FromTeacher) and self.student.teacher not in self.all_teachers:
            raise ValueError(
                f"`student.from`: {self.student.teacher!r} is not one of the teachers: {', '.join(self.all_teachers)}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("`seeds`: a seed is listed twice, which would only repeat a training; remove one of them")
        for variant in self.variants:
            written = self.on_policy_of(variant)
            # Written samples may have divergences of their own. A capture would be for nothing.
            own = [] if written is None or self.capture is not None else written.losses or []
            if not any(loss.kind != "cross_entropy" and loss.weight > 0 for loss in [*self.losses_of(variant), *own]):
                raise ValueError(
                    f"`{self._losses_key(variant)}`: no loss with a weight above 0 uses a teacher; add a divergence"
                )
        return self

    @model_validator(mode="after")
    def _search_is_possible(self) -> "Recipe":
        check_search(self)
        return self

    @model_validator(mode="after")
    def _select_is_possible(self) -> "Recipe":
        if self.select is None:
            return self
        if self.distil.snapshots is None:
            raise ValueError("`select` needs snapshots, and none are kept; keep some, as in `distil.snapshots: 30`")
        if self.distil.keep == "best":
            raise ValueError(
                "`distil.keep: best` and `select` both choose the student's weights; remove one of the two"
            )
        if LOSS in self.select.by and self.corpus.validation is None:
            raise ValueError(
                "`select.by: loss` needs `corpus.validation`, which is missing, because samples used for selection "
                "are never reported; give its size"
            )
        continued = [f"{name}/{each}" for name, given in self.evaluate.continuations.items() for each in given.metrics]
        known = [LOSS, *([] if self.asks else [*self.evaluate.minimal_pairs, *continued])]
        # Only lm-eval knows the figures of a task. It is asked before the first stage runs.
        of_tasks = "/" if self.evaluate.tasks else None
        if unknown := [one for one in self.select.by if one not in known and not (of_tasks and of_tasks in one)]:
            near = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"choose one of {', '.join(known)}"
            raise ValueError(f"`select.by`: {unknown[0]!r} is not measured here; {hint}")
        return self

    def _losses_key(self, variant: str | None) -> str:
        return f"experiments.{variant}.losses" if self.variants[variant].losses else "distil.losses"

    @model_validator(mode="after")
    def _samples_fit(self) -> "Recipe":
        best = [f"pretrain.{name}" for name, teacher in self.pretrain.items() if teacher.keep == "best"]
        best += ["distil"] if self.distil.keep == "best" else []
        if best and self.corpus.validation is None:
            raise ValueError(f"`{best[0]}.keep: best` needs `corpus.validation`, which is missing; give its size")
        packed = isinstance(self.corpus, Corpus) and self.corpus.layout == "packed"
        if self.distil.reduction == "sequence" and not packed:
            raise ValueError(
                "`distil.reduction: sequence` needs `corpus.layout: packed`, whose samples all have one length"
            )
        if not isinstance(self.corpus, Corpus):
            return self
        if self.corpus.random_offset and not packed:
            raise ValueError("`corpus.random_offset` needs `corpus.layout: packed`; remove it for padded samples")
        if self.corpus.random_offset and self.capture is not None:
            raise ValueError(
                "`corpus.random_offset` makes new samples each epoch, but `capture` has only the first epoch's; remove "
                "one of the two"
            )
        return self

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> "Recipe":
        if (complaint := next(complaints(self), None)) is not None:
            raise ValueError(complaint)
        return self

    @model_validator(mode="after")
    def _engines_can_do_it(self) -> "Recipe":
        llama_cpp = [name for name, one in self.teachers.items() if getattr(one, "engine", None) == "llama_cpp"]
        if not llama_cpp:
            return self
        if (apart := getattr(self.corpus, "keeps_apart", None)) is not None:
            given, remedy = apart
            raise ValueError(
                f"`corpus.{given}`: `teachers.{llama_cpp[0]}.engine: llama_cpp` reads a sample as one "
                f"text; use `engine: transformers`, or `{remedy}`"
            )
        asked = [self._losses_key(name) for name in self.variants if self._matches_layers(name)]
        asked += ["capture.keep: hidden"] if self.capture is not None and self.capture.keep == "hidden" else []
        if asked:
            raise ValueError(
                f"`{asked[0]}` needs the teacher's hidden states, but `teachers.{llama_cpp[0]}.engine: llama_cpp` "
                "gives only logits; use `engine: transformers`"
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
        losses, key, several = self.losses_of(variant), self._losses_key(variant), may_teach_together(self)
        if any(isinstance(loss, HiddenMatch) for loss in losses):
            raise ValueError(
                f"`{key}`: hidden_match needs the teacher's layers, but `capture` keeps none of them; remove one "
                "of the two"
            )
        if keep in ("hidden", "spans"):
            return
        if several and self.distil.mix == "logits":
            raise ValueError(
                f"`distil.mix: logits` needs each teacher's whole distribution, but `capture.keep: {keep}` keeps "
                "only a part of it; use `mix: probabilities`, or `keep: hidden`"
            )
        others = [loss.kind for loss in losses if loss.kind not in ("cross_entropy", "forward_kl")]
        if others and (several or keep != "top_k"):
            whose = "several teachers" if several else "a teacher"
            raise ValueError(
                f"`{key}`: {others[0]} needs the whole distribution of {whose}, but `capture.keep: {keep}` "
                "keeps only a part of it; use forward_kl, or `keep: hidden`"
            )
