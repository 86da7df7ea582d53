"""DistilTrainer: a transformers Trainer whose loss comes from teachers. All the rest is Trainer's own."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from potstill.errors import DivergedError, UserError
from potstill.losses.chunked import distillation_loss
from potstill.losses.compiled_kernels import worth_compiling
from potstill.losses.cpu_buffers import free_all, keep_freed
from potstill.losses.hidden_states import HiddenLoss
from potstill.losses.logit_chunks import CastWeights
from potstill.losses.loss import Loss
from potstill.losses.teacher_target import GroupedTarget, TeacherTarget
from potstill.models.forward import LayerStates, forward_with_layers
from potstill.models.head import Head
from potstill.models.head_extraction import head_of, read_head
from potstill.recipe.on_policy import OnPolicy
from potstill.targets import TargetStore
from potstill.teachers.across_tokenizers import across_tokenizers
from potstill.teachers.beside import TeacherBeside
from potstill.teachers.vocabulary_agreement import agreed_vocabulary
from potstill.training.accumulation import WRITTEN, MicroBatches, OptimizerStep, only_one
from potstill.training.hidden_matching import HiddenMatching
from potstill.training.memory import loss_budget, trained_bytes
from potstill.training.mixed_batches import ROLLOUTS, parts_of
from potstill.training.model_checks import check_models
from potstill.training.named_models import (
    named_student,
    names_of_teachers,
    teachers_beside,
    teachers_in_order,
    with_adapter_of,
)
from potstill.training.on_policy_trainer import OnPolicyTrainer
from potstill.training.sharding import add_gradients_in_float32, use_fsdp_on_cpu
from potstill.training.taught_rows import in_groups
from potstill.training.teaching import Teaching, shares_of_weights
from potstill.training.trl_arguments import check_arguments, trainer_arguments

TeacherLike: TypeAlias = PreTrainedModel | TeacherBeside | TargetStore | str | Path
"""A model that runs beside the student, a store of captured targets, the folder of either, or a model's hub name."""

DEFAULT_LOSSES = (Loss("forward_kl", weight=0.5), Loss("cross_entropy", weight=0.5))


class DistilTrainer(OnPolicyTrainer):
    """Trains a student from one teacher, several, or none.

    The loss is the sum over `losses` of weight x (sum over the supervised tokens of the whole optimizer step, on all
    ranks and in all accumulated batches) / (their number). So the size of micro-batches changes nothing. Evaluation
    measures cross-entropy alone: it is the same for all trainings and needs no teacher.

    A mixture of experts with `output_router_logits: true` adds its `router_loss` (``models/router_loss.py``).

    Args:
        teacher: a model, a :class:`TargetStore`, the folder of either, the name of a model on the hub, or a list of
            them; None where the only loss is cross-entropy. A teacher reads the student's batch, or its own prompts
            where the samples have them (:class:`AlignedSample`). A dictionary gives the teachers names: each then
            teaches only the samples that name it in their column `teachers`.
        losses: the terms of the sum, each a :class:`Loss` or a :class:`HiddenLoss`. Default: forward KL and
            cross-entropy, half each.
        temperature: if given, the temperature of every divergence in `losses`.
        teacher_weights: the share of each of several teachers. Default: equal shares.
        mix: whether several teachers' probabilities or their logits are averaged. Of teachers of other tokenizers,
            the losses are averaged.
        teacher_tokenizer: the teacher's tokenizer, or a list with one for each teacher. Required where a teacher's head
            has another size than the student's. All losses then compare only the ids that are the same tokens in
            `processing_class`. A store records its own tokenizer.
        max_length: samples of text are cut to this number of tokens. Default: `args.max_length`, if `args` has it.
        conversations: how rows with `messages` become samples: `learn`, `template`, `too_long` and the other keys of a
            recipe's `corpus` of conversations. Their `sequence_length` is `max_length`, or else all that the student
            reads.
        peft_config: the configuration of an adapter of peft, which is added to the model and trained in its place.
        on_policy: lets the student write a share of its samples itself (:class:`OnPolicy`).
        rollout_teacher: the teachers of these samples, where `teacher` is a store of captured targets.
        compile: whether to compile the loss's kernels. Default: where that saves more time than it takes.
        memory_budget: bytes for the logits of one chunk of the loss. Default: 256 MiB on a CPU, and on a GPU an eighth
            of its free memory, at most 4 GiB.
        **trainer: the arguments of :class:`transformers.Trainer`. `model` may be the name of a folder or of a model on
            the hub; it is loaded in float32, with its tokenizer. Without a `data_collator`, samples may be texts
            (:class:`TextReader`), conversations (``chat_samples.py``), or tokens with columns that say which of them
            are learned and where documents begin (:class:`Collator`). They are padded with `processing_class`'s pad
            token.

    Raises:
        UserError: the losses need a teacher and there is none, a model cannot be loaded, a store does not fit, samples
            or a collator cannot be used, or the loss is not finite.
    """

    # The loss is already divided by the tokens of the whole step, so Trainer must not divide it.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *args: Any,
        teacher: TeacherLike | Sequence[TeacherLike] | Mapping[str, TeacherLike] | None = None,
        losses: Sequence[Loss | HiddenLoss] = DEFAULT_LOSSES,
        temperature: float | None = None,
        teacher_weights: Sequence[float] | None = None,
        mix: Literal["probabilities", "logits"] = "probabilities",
        teacher_tokenizer: Any = None,
        max_length: int | None = None,
        conversations: Mapping[str, Any] | None = None,
        peft_config: Any = None,
        on_policy: OnPolicy | Mapping[str, Any] | None = None,
        rollout_teacher: TeacherLike | Sequence[TeacherLike] | Mapping[str, TeacherLike] | None = None,
        compile: bool | None = None,
        memory_budget: int | None = None,
        **trainer: Any,
    ) -> None:
        trainer = trainer_arguments(args, trainer)
        check_arguments(trainer.get("args"))
        trainer |= named_student(trainer.get("model"), trainer.get("processing_class"))
        self.teachers = teachers_beside(trainer.get("model"), teacher)
        self.losses = [
            replace(loss, temperature=temperature) if temperature is not None and loss.needs_teacher else loss
            for loss in losses
            if not isinstance(loss, HiddenLoss)
        ]
        self.hidden_losses = [loss for loss in losses if isinstance(loss, HiddenLoss)]
        shares, names = shares_of_weights(teacher_weights, len(self.teachers)), names_of_teachers(teacher)
        tokenizers = trainer.get("processing_class"), teacher_tokenizer
        self.teachers = across_tokenizers(self.teachers, names, [*self.losses, *self.hidden_losses], *tokenizers, mix)
        self.teaching = Teaching(self.teachers, shares, mix, names)
        self._check_losses()
        if peft_config is not None:
            trainer["model"] = with_adapter_of(trainer.get("model"), peft_config, trainer.get("args"))
        super().__init__(**trainer)
        self._check_trainer()
        self.model_accepts_loss_kwargs = True
        # A loss that is not finite stops the training. Trainer would look for it, and wait, in each micro-batch.
        self.args.logging_nan_inf_filter = False
        # Pinned memory is copied to a GPU while the host goes on.
        self.accelerator.dataloader_config.non_blocking = self.args.dataloader_pin_memory
        readers = teachers_beside(self.model, teachers_in_order(rollout_teacher, names))
        readers = across_tokenizers(readers, names, self.losses, *tokenizers, mix)
        self.vocabulary = self._agreed_vocabulary(readers, teacher_tokenizer)
        self._read_samples(trainer.get("data_collator"), max_length, conversations)
        self._write_samples(on_policy, readers)
        self._matching = self._hidden_matching()
        self._head_is_extracted = head_of(self.model) is not None
        self._step = self._new_step(self.args.device)
        self._terms: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.args.device))
        self._steps_not_logged = 0
        self._compile = compile
        if memory_budget is not None and memory_budget < 1:
            raise UserError(f"`memory_budget` must be a number of bytes above 0, not {memory_budget}")
        self._memory_budget = memory_budget
        # Without accumulation there is no other micro-batch to keep a cast for. FSDP has no whole head between them.
        keeps = self.args.gradient_accumulation_steps > 1 and not self.is_fsdp_enabled
        self._casts = CastWeights() if keeps else None

    def _agreed_vocabulary(self, readers: Sequence[TeacherBeside | TargetStore], tokenizer: Any) -> int | None:
        """The number of ids that the losses compare, of models that were checked and are in their places now.

        Args:
            readers: the teachers of written samples, if they are not those of the other samples.
            tokenizer: that of the teachers, as it was given.
        """
        ours = (self.model, self.processing_class)
        if readers:
            # A store's targets and its teacher's are of the same ids.
            agreed_vocabulary(*ours, readers, tokenizer, self.losses)
        found = agreed_vocabulary(*ours, self.teachers, tokenizer, self.losses)
        for given in (self.teachers, readers):
            check_models(*ours, given, tokenizer)
            for one in (one for one in given if not isinstance(one, TargetStore)):
                (one.shard if self.is_fsdp_enabled else one.to)(self.args.device)
        return found

    def create_accelerator_and_postprocess(self) -> None:
        """As Trainer's; FSDP shards on a CPU too, and adds up gradients in float32."""
        add_gradients_in_float32(self.args)
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled |= use_fsdp_on_cpu(self.accelerator, self.args)

    def _check_losses(self) -> None:
        needing = [loss.kind for loss in self.losses if loss.needs_teacher] + [one.kind for one in self.hidden_losses]
        if not self.losses and not self.hidden_losses:
            raise UserError("`losses` is empty; give at least one Loss")
        if needing and not self.teachers:
            raise UserError(f"{needing[0]} needs a teacher; give `teacher=` a model or a store of captured targets")
        stores = [one.path for one in self.teachers if isinstance(one, TargetStore)]
        if self.hidden_losses and stores:
            raise UserError(
                f"hidden_match needs the teacher's layers, and {stores[0]} keeps none of them, in any mode of "
                "capture; give the teacher itself as `teacher=`, or leave hidden_match out"
            )

    def _check_trainer(self) -> None:
        if self.args.n_gpu > 1:
            raise UserError(
                f"one process sees {self.args.n_gpu} GPUs; start one process a GPU: torchrun --nproc_per_node"
            )
        if self.args.label_smoothing_factor or self.compute_loss_func is not None:
            name = "compute_loss_func" if self.compute_loss_func is not None else "label_smoothing_factor"
            raise UserError(f"`{name}` would change nothing: the loss is the sum of `losses`; leave it out")

    def _hidden_matching(self) -> HiddenMatching | None:
        if not self.hidden_losses:
            return None
        configs = [one.config for one in self.teachers if not isinstance(one, TargetStore)]
        shares, names, seed = self.teaching.shares, self.teaching.names, self.args.seed
        matching = HiddenMatching(self.hidden_losses, self.model.config, configs, shares, seed, names)
        matching = matching.to(self.args.device)
        if matching.learns and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise UserError(
                "hidden_match between models of different hidden sizes learns projectors, which FSDP and DeepSpeed do "
                "not know of; train with DDP, or match models of one hidden size"
            )
        return matching

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[Any, Any]:
        """The micro-batches of one optimizer step, read one by one, and the divisor of each until all are counted."""
        batches: Any = MicroBatches(epoch_iterator, num_batches)
        self._step = self._new_step(device)
        if self.is_deepspeed_enabled:
            # DeepSpeed hides its gradients. They cannot be scaled afterwards, so the tokens are counted before.
            batches = list(batches)
        batches = self._with_rollouts(batches, self._loss_options)
        if known := batches if self.is_deepspeed_enabled else only_one(batches):
            self._step.divide_by(self._of_all_ranks(self._step.tokens_of(known)))
        # A stream that has ended gives steps without batches, which are not taken.
        self._steps_not_logged += bool(len(batches))
        if self._matching is not None:
            # Trainer does this for the student after each step. It does not know the projectors.
            self._matching.zero_grad()
        return batches, self._step.divisor

    def _new_step(self, device: torch.device) -> OptimizerStep:
        return OptimizerStep(self._estimate_tokens_per_step(), device, self.teaching.names or ())

    def _of_all_ranks(self, tokens: Tensor) -> Tensor:
        return self.accelerator.gather(tokens[None]).sum(0) if self.args.world_size > 1 else tokens

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The weighted sum of the losses on one micro-batch, divided by the supervised tokens of the whole step."""
        matching, extracted = self._matching, self._head_is_extracted
        wanted = matching.student_layers if matching else ()
        rollouts = self.on_policy if ROLLOUTS in inputs else None
        states, labels, layers, router = in_groups(forward_with_layers(model, extracted, inputs, wanted), inputs)
        head = read_head(model) if extracted else None
        ranks = self.args.world_size if num_items_in_batch is not None else 1
        tokens = torch.tensor(len(labels)) if num_items_in_batch is None else num_items_in_batch
        denominator = tokens.clamp(min=1)
        share = len(labels) / denominator
        # Outside the student's autocast: a live teacher runs in its own dtype, like a captured teacher.
        with self._timed("score", inputs):
            target, theirs = self._teacher_outputs(inputs)
        losses: Sequence[Loss] = self.losses if rollouts is None else rollouts.losses
        with self.accelerator.autocast():
            loss, terms = self._loss_of_tokens((states, head, labels), target, losses, denominator)
            if rollouts is not None:
                of_written, of_each = rollouts.loss(inputs, (states, head, labels), target, denominator)
                loss, terms = loss + of_written, {**terms, **of_each}
            if matching is not None:
                of_layers, of_each = matching(layers, theirs, denominator, self.teaching.taught(inputs))
                loss, terms = loss + of_layers, {**terms, **of_each}
            if router is not None:
                loss, terms = router.add_to(loss, terms, share)
        if rollouts is not None:
            terms = {f"{WRITTEN}{name}": value for name, value in terms.items()}
        # DDP averages the gradients over ranks, but the loss is a sum over ranks.
        loss = loss * ranks
        self._step.add_terms(terms, ranks)
        if return_outputs:
            return loss, {"loss": loss}
        return loss

    def _loss_of_tokens(
        self,
        outputs: tuple[Tensor, Head | None, Tensor],
        target: TeacherTarget | GroupedTarget | None,
        losses: Sequence[Loss],
        denominator: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of losses over tokens, with the terms to log; a loss of 0 where there are no losses."""
        states, head, labels = outputs
        options = self._loss_options() | {"denominator": denominator}
        if losses:
            return distillation_loss(states, head, labels, target, losses, **options)
        # With a graph that reaches every weight: DDP waits for the gradients of all weights.
        nothing = [Loss("cross_entropy", weight=0.0)]
        return distillation_loss(states[:0], head, labels[:0], None, nothing, **options)[0], {}

    def _loss_options(self) -> dict[str, Any]:
        return {
            "vocabulary": self.vocabulary,
            "memory_budget": self._budget(),
            "compile": self._compiles(),
            "casts": self._casts,
        }

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer's. Memory that the loss needs in each step is kept until the end."""
        keep_freed()
        try:
            return super().train(*args, **kwargs)
        finally:
            free_all()
            self._forget_casts()

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one micro-batch. Stops if the step's loss is not finite, before any weight changes.

        It reads one number of a step from the device, at the last micro-batch: a GPU is idle while the host waits.

        Returns the loss of the step at its last micro-batch, and 0 at the others.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._step.add(parts_of(inputs), loss)
        if not self.accelerator.sync_gradients:
            return torch.zeros_like(loss)
        self._forget_casts()
        trained = [model]
        if self._matching is not None:
            self._matching.average_gradients(self.args.world_size)
            trained.append(self._matching)
        whole = self._step.finish(self._of_all_ranks(self._step.tokens), trained)
        if not math.isfinite(number := whole.item()):
            raise DivergedError(
                f"the loss is {number} at step {self.state.global_step + 1}; the checkpoints before it are good: "
                "lower `learning_rate`, or raise `warmup_steps`, and start again from there"
            )
        for name, value in self._step.terms.items():
            self._terms[name] += value
        return whole

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As Trainer's, with the projectors of hidden_match."""
        optimizer = super().create_optimizer(model)
        if self._matching is not None:
            self._matching.join(optimizer, self.args.weight_decay)
        return optimizer

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._matching is not None and self.args.should_save:
            self._matching.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self._matching is not None and checkpoint is not None:
            self._matching.load(Path(checkpoint))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the mean of each loss term, without its weight, over the steps since the last log."""
        if "loss" in logs and self._steps_not_logged:
            # One gather and one read: on a GPU each waits for all work before it.
            names = self._names_of_all_ranks(list(self._terms))
            totals = self.accelerator.gather(torch.stack([self._terms[name] for name in names]))
            means = totals.view(-1, len(names)).mean(0).tolist()
            logs |= {name: mean / self._steps_not_logged for name, mean in zip(names, means, strict=True)}
            self._terms.clear()
            self._steps_not_logged = 0
        super().log(logs, start_time)

    def _forget_casts(self) -> None:
        if self._casts is not None:
            self._casts.clear()

    def _budget(self) -> int:
        """The loss's memory budget. It is chosen once, in the first micro-batch, when the models are in memory."""
        if self._memory_budget is None:
            trained = sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)
            self._memory_budget = loss_budget(self.args.device, trained_bytes(trained, self.args))
        return self._memory_budget

    def _compiles(self) -> bool:
        """Whether to compile the loss's kernels. It depends on the length of the whole training, so that a resumed
        training decides the same."""
        if self._compile is None:
            tokens = self.state.max_steps * self._estimate_tokens_per_step() // self.args.world_size
            self._compile = worth_compiling(tokens, self._logits_of_token, self.args.device)
        return self._compile

    def _teacher_outputs(
        self, inputs: Mapping[str, Any]
    ) -> tuple[TeacherTarget | GroupedTarget | None, list[LayerStates]]:
        """The teachers' target for a batch, where a loss needs one; and each teacher's layers for hidden_match."""
        rollouts = self.on_policy if ROLLOUTS in inputs else None
        losses = self.losses if rollouts is None else rollouts.losses
        temperatures = [loss.temperature for loss in losses if loss.needs_teacher]
        if rollouts is not None and rollouts.gradients:
            temperatures = [1.0]
        if not temperatures and self._matching is None:
            return None, []
        teaching = self.teaching if rollouts is None else rollouts.teaching
        layers = self._matching.teacher_layers if self._matching is not None else ()
        return teaching.read(inputs, temperatures[0] if temperatures else None, layers, self._compiles())
