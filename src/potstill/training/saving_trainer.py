"""SavingTrainer: a Trainer that saves only weights that are finite, and loads only checkpoints that are whole."""

from typing import Any

from potstill.errors import DivergedError
from potstill.models.saving import names_in_memory
from potstill.training.sample_trainer import SampleTrainer


class SavingTrainer(SampleTrainer):
    """The part of :class:`DistilTrainer` that saves and loads the student."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the student, as a checkpoint or at the end.

        Raises:
            DivergedError: a weight is not finite; nothing is written.
        """
        # A finite loss can have an infinite gradient, and the optimizer step then makes weights that are not finite.
        if not all(weight.isfinite().all() for weight in self.model.parameters() if weight.requires_grad):
            raise DivergedError(
                f"a weight is not finite after step {self.state.global_step}, so it was not saved; the checkpoints "
                "before are good: lower `learning_rate`, or `max_grad_norm`, and start again from there"
            )
        if not _internal_call:
            super().save_model(output_dir)
            return
        with names_in_memory(self.model):
            super().save_model(output_dir, _internal_call=True)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Stop where a checkpoint lacks weights of the student. Transformers would warn, and train other weights."""
        # Of tied weights, a file has one.
        tied = getattr(self.model, "all_tied_weights_keys", {})
        assert not set(load_result.missing_keys) - {*tied, *tied.values()}, load_result.missing_keys
        assert not load_result.unexpected_keys, load_result.unexpected_keys

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.is_fsdp_enabled and state_dict:
            # Gathered from the ranks, tied weights are copies, and transformers would save each.
            tied = getattr(self.model, "all_tied_weights_keys", None) or {}
            state_dict = {name: weight for name, weight in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)
