"""`student:` — the student before training."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from potstill.recipe.section import ForeignFields, Section, about_key

NOT_IN_AN_ADAPTER = {
    "merge": "is a key of `student`; move it out of `adapter`",
    "task_type": "is set by potstill, because every student is a causal language model; remove it",
    "peft_type": "is set by potstill, because these are the fields of LoraConfig; remove it",
    "inference_mode": "is set by potstill, because the adapter is trained; remove it",
    "base_model_name_or_path": "is set by potstill, because the base is the student's own start; remove it",
    "revision": "is set by potstill, because the base is the student's own start; remove it",
    "auto_mapping": "is set by potstill, because every student is a causal language model; remove it",
    "peft_version": "is set by peft; remove it",
    "runtime_config": "is not saved with an adapter, so a loaded adapter would differ; remove it",
    "layer_replication": "changes the start itself, and an adapter must not; remove it",
    "megatron_config": "is for Megatron models, which potstill does not train; remove it",
    "megatron_core": "is for Megatron models, which potstill does not train; remove it",
    "arrow_config": "combines existing adapters, and potstill trains a new one; remove it",
    "eva_config": "needs a pass over data before the training, which potstill does not make; remove it",
    "corda_config": "needs a pass over data before the training, which potstill does not make; remove it",
    "lora_ga_config": "needs a pass over data before the training, which potstill does not make; remove it",
    "loftq_config": "changes the weights of the start that is measured; use `quantization`",
}
"""Fields of peft's `LoraConfig` that a recipe may not set, each with the reason."""

RANGES_OF_ADAPTERS = {"r": (1, 2**20), "lora_alpha": (1e-3, 2**20), "lora_dropout": (0, 1)}
"""The least value of a field of `LoraConfig`, and the value that it must stay below."""

STARTS_REFUSED = ("eva", "corda", "lora_ga", "loftq", "pissa_niter")
"""Values of `init_lora_weights`, or their beginnings, that are refused. Some give another adapter when it is read again
(its base is cut at random). Others need a pass over data that potstill does not make; peft silently goes on without
it."""


IMPORTANCE_SAMPLES = 32
"""The default number of samples that measure importance: minutes on a CPU, with sequences of 128 tokens."""


def _has_a_model_type(config: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(config.get("model_type"), str):
        raise about_key("model_type", "is missing; name an architecture of transformers, such as llama")
    return config


ModelConfig = Annotated[ForeignFields, AfterValidator(_has_a_model_type)]
"""The fields of a transformers configuration, with `model_type`."""


def _lora_fields(fields: dict[str, Any]) -> dict[str, Any]:
    for key, value in fields.items():
        if key in NOT_IN_AN_ADAPTER:
            raise about_key(key, NOT_IN_AN_ADAPTER[key])
        if key in RANGES_OF_ADAPTERS:
            least, below = RANGES_OF_ADAPTERS[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < below:
                raise about_key(key, f"must be a number from {least} to below {below:,}, not {value!r}")
    how = fields.get("init_lora_weights")
    if isinstance(how, str) and how.startswith(STARTS_REFUSED):
        raise about_key(
            "init_lora_weights",
            f"{how!r} needs a preparation that potstill does not make, or gives another adapter when it is read again; "
            "remove it, or use `pissa`, `olora`, `orthogonal` or `gaussian`",
        )
    return fields


def _bitsandbytes_fields(fields: dict[str, Any]) -> dict[str, Any]:
    if fields.get("quant_method", "bitsandbytes") != "bitsandbytes":
        raise about_key("quant_method", "must be bitsandbytes, because an adapter can be trained on its weights")
    if [fields.get(bits) for bits in ("load_in_4bit", "load_in_8bit")].count(True) != 1:
        raise about_key("load_in_4bit", "set either `load_in_4bit` or `load_in_8bit` to true")
    return fields


Adapter = Annotated[ForeignFields, AfterValidator(_lora_fields)]
"""The fields of peft's `LoraConfig`."""

Quantization = Annotated[ForeignFields, AfterValidator(_bitsandbytes_fields)]
"""The fields of transformers' `BitsAndBytesConfig`."""


class StudentBase(Section):
    adapter: Adapter | None = None
    """Train an adapter (LoRA) on top of the start, whose own weights stay fixed: any field of peft's `LoraConfig`,
    under its own name. The control has the same adapter. Default: every weight is trained."""

    quantization: Quantization | None = None
    """Load the start in 4 or 8 bits for training, scoring and answering (QLoRA): any field of transformers'
    `BitsAndBytesConfig`, under its own name. The start on disk is not quantised. Needs `adapter`. Default: not
    quantised."""

    merge: bool = False
    """Save the finished student as a plain model, with its adapter merged into the start (a quantised start is
    dequantised first). Needs `adapter`. Default: false, which saves the adapter alone."""

    @model_validator(mode="after")
    def _has_an_adapter(self) -> "StudentBase":
        if self.adapter is None and self.quantization is not None:
            raise about_key(
                "quantization",
                "needs `adapter`, because weights of 4 or 8 bits cannot be trained; add `adapter`, or remove it",
            )
        if self.adapter is None and self.merge:
            raise about_key("merge", "needs `adapter`, which is merged; add `adapter`, or remove it")
        if self.merge and (self.adapter or {}).get("alora_invocation_tokens") is not None:
            raise about_key(
                "merge",
                "is impossible with `alora_invocation_tokens`, which activate an adapter in the middle of a text; "
                "remove it",
            )
        return self


class FromTeacher(StudentBase):
    """A student made from one of the teachers."""

    teacher: str = Field(alias="from")
    """The name of a teacher in `teachers` or `pretrain`."""


class Copy(FromTeacher):
    """The teacher itself: to train an adapter on top of it, or to let it learn from itself with another prompt."""

    start: Literal["copy"]
    """How the student is made: a copy of its teacher."""


Layers = Annotated[int, Field(gt=0)] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class Pruned(FromTeacher):
    """How a teacher is pruned."""

    rule: Literal["spread", "ends", "importance"] = "spread"
    """Which layers are kept. `spread` (default): at even distances, the first and the last included (a single layer is
    the last). `ends`: dense at both ends, where layers matter most: two fifths of the kept layers are the teacher's
    first, two fifths its last, and the others lie at even distances between them; with fewer than five, as `spread`.
    `importance`: the layers that matter most on some of the training samples."""

    by: Literal["loss", "hidden"] | None = None
    """How `rule: importance` measures a layer. `loss` (default): how much the teacher's loss rises without the layer
    (one pass for each layer). `hidden`: 1 - the cosine between the layer's input and its output (one pass)."""

    importance_samples: int | None = Field(None, gt=0)
    """The number of training samples that measure importance. Default: 32."""

    @property
    def measured_samples(self) -> int:
        """The number of samples that measure importance; 0 if nothing is measured."""
        return (self.importance_samples or IMPORTANCE_SAMPLES) if self._measures else 0

    @property
    def _measures(self) -> bool:
        return self.rule == "importance"

    @model_validator(mode="after")
    def _importance_is_consistent(self) -> "Pruned":
        if self.rule != "importance" and self.by is not None:
            raise about_key("by", "needs `rule: importance`; add that, or remove `by`")
        if not self._measures and self.importance_samples is not None:
            raise about_key("importance_samples", "needs `rule: importance`; add that, or remove it")
        if self.rule == "importance" and not isinstance(getattr(self, "layers", None), int):
            raise about_key("layers", "must be a number with `rule: importance`, which chooses the layers itself")
        return self


class PrunedLayers(Pruned):
    """The teacher without some of its layers. Embeddings, norms and head are the teacher's."""

    start: Literal["prune_layers"]
    """How the student is made: its teacher without some layers."""

    layers: Layers
    """The number of layers to keep, chosen by `rule`; or a list of layers, counted from 0."""


class PrunedWidth(Pruned):
    """The teacher with fewer heads, neurons or channels. Those with the greatest activations on some of the training
    samples are kept (Minitron, arXiv:2407.14679). For Llama, Mistral, Qwen, SmolLM, GPT-2 and GPT-NeoX."""

    start: Literal["prune_width"]
    """How the student is made: its teacher, made narrower."""

    heads: int | None = Field(None, gt=0)
    """The number of attention heads in each layer; a head keeps the teacher's size. Heads that share keys and values
    stay together, unless `key_value_heads` is given too. Default: the number that fits `key_value_heads`, or all."""

    key_value_heads: int | None = Field(None, gt=0)
    """The number of key and value heads in each layer. Default: the number that `heads` needs."""

    intermediate_size: int | None = Field(None, gt=0)
    """The number of neurons in each feed-forward network. Default: all."""

    hidden_size: int | None = Field(None, gt=0)
    """The number of channels of the residual stream. Default: all; for GPT-2 and GPT-NeoX, the number that the heads
    fill."""

    layers: Layers | None = None
    """The number of layers to keep, chosen by `rule` before the width is pruned; or a list of layers, counted from 0.
    Default: all."""

    @property
    def _measures(self) -> bool:
        # Width is always pruned by importance.
        return True

    @model_validator(mode="after")
    def _is_narrower(self) -> "PrunedWidth":
        given = (self.heads, self.key_value_heads, self.intermediate_size, self.hidden_size)
        if given == (None,) * len(given):
            raise about_key(
                "start",
                "`prune_width` needs one of `heads`, `key_value_heads`, `intermediate_size` and `hidden_size`; add "
                "one, or use `prune_layers`",
            )
        return self


class Checkpoint(StudentBase):
    """A smaller model that exists already. It must have the teachers' tokenizer, unless its vocabulary is carried over.
    Its head may be padded to another size."""

    start: Literal["checkpoint"]
    """How the student is made: from a model that exists already."""

    model: str
    """A name on the hub, or a folder."""

    revision: str | None = None
    """A commit, tag or branch of the hub's repository. Default: its main branch."""

    vocabulary: Literal["carry_over"] | None = None
    """What happens to a model whose tokenizer is not the run's. Default: it is refused. `carry_over`: it gets the run's
    tokenizer. Tokens that both have keep their rows of embeddings and head. Any other token starts as the mean of the
    tokens into which the model's own tokenizer splits it (arXiv:2402.09977)."""


class Scratch(StudentBase):
    """A model of a given shape with random weights."""

    start: Literal["scratch"]
    """How the student is made: with random weights."""

    config: ModelConfig
    """The fields of a transformers configuration, with `model_type`. The vocabulary size comes from the tokenizer."""

    @model_validator(mode="after")
    def _has_no_adapter(self) -> "Scratch":
        if self.adapter is not None:
            raise about_key("adapter", "needs a trained start, and `scratch` has random weights; remove it")
        return self


Student = Annotated[Copy | PrunedLayers | PrunedWidth | Checkpoint | Scratch, Field(discriminator="start")]
