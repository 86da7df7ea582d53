"""Docstrings: names of classes and functions in them become links, where the page has them."""

import re

import griffe

ROLE = re.compile(r":(?:class|func|meth):`~?([\w.]+)`")
PUBLIC = {
    "DistilTrainer": "potstill.training.trainer.DistilTrainer",
    "HiddenLoss": "potstill.losses.hidden_states.HiddenLoss",
    "Loss": "potstill.losses.loss.Loss",
    "OnPolicy": "potstill.recipe.on_policy.OnPolicy",
    "TargetStore": "potstill.targets.store.TargetStore",
}


class LinkedNames(griffe.Extension):
    """Replaces Sphinx's roles, which a site of Markdown does not know."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Change the docstring of an object of the source."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(_linked, obj.docstring.value)


def _linked(found: re.Match[str]) -> str:
    name = found.group(1)
    return f"[`{name}`][{PUBLIC[name]}]" if name in PUBLIC else f"`{name}`"
