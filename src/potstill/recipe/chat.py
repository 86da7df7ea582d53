"""Chat: how models answer in `potstill chat`. It is no part of a recipe: `--set KEY=VALUE` gives it."""

from pydantic import Field

from potstill.recipe.section import NewTokens, Section


class Chat(Section):
    """How models answer in a terminal."""

    system: str | None = None
    """The system prompt of every conversation. Default: none, but some chat templates add their own."""

    max_new_tokens: NewTokens = 512
    """The greatest length of an answer in tokens. Default: 512."""

    temperature: float = Field(0.0, ge=0)
    """0 (default): always the most probable token (greedy). Above 0: tokens are drawn."""

    top_p: float = Field(1.0, gt=0, le=1)
    """Draw only from the most probable tokens that together have this probability. Default: 1, which is all."""

    top_k: int | None = Field(None, gt=0)
    """Draw only from this number of most probable tokens. Default: all."""

    seed: int = Field(0, ge=0, lt=2**32)
    """The seed of the draws. Default: 0."""
