"""A training that is stopped at a step, as Ctrl-C stops it."""

import pytest

from potstill.pipeline.runner import run_recipe
from potstill.training.trainer import DistilTrainer


def stopped_at(step, recipe, run, monkeypatch):
    """Distil until that step begins, and stop there."""
    with monkeypatch.context() as patch:
        plain = DistilTrainer.training_step

        def training_step(self, *args):
            if self.state.global_step == step:
                raise KeyboardInterrupt
            return plain(self, *args)

        patch.setattr(DistilTrainer, "training_step", training_step)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, run, until="distil")
