"""Notes about teachers behind servers: what their figures mean, what they were asked, and what that cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.console import size
from potstill.recipe.teachers import ScoringTeacher, ServerTeacher, WritingTeacher


def notes_of_served(
    name: str, given: ServerTeacher, prepared: Mapping[str, Any], traffic: Sequence[Mapping[str, int]]
) -> list[str]:
    """The notes of one teacher, one or two sentences each.

    Args:
        name: the teacher's name.
        given: the recipe's section.
        prepared: what the stage `teachers` wrote down: the model, and the server's version and noise, or its format.
        traffic: what was asked in each step.
    """
    if isinstance(given, ScoringTeacher):
        said = _of_scoring(name, given, prepared["served"])
    elif isinstance(given, WritingTeacher):
        said = _of_writing(name, given, prepared["served"])
    else:
        hosted = prepared["hosted"]
        said = [
            f"Teacher {name} ({hosted['model']}) ran behind `potstill serve`, in {hosted['dtype']}. It sent its hidden "
            "states, so its distributions are whole."
        ]
    total = {key: sum(one[key] for one in traffic) for key in ("requests", "tokens_read", "tokens_written")}
    if not total["requests"]:
        return said
    received = size(sum(one["bytes_received"] for one in traffic))
    asked = f"{total['requests']:,} requests, {total['tokens_read']:,} tokens read, {total['tokens_written']:,} written"
    return [*said, f"It answered {asked}, in {received}{_price(given, total)}."]


def _of_writing(name: str, given: WritingTeacher, facts: Mapping[str, Any]) -> list[str]:
    noise, version = facts["noise"], f" {facts['version']}" if facts["version"] else ""
    return [
        f"Teacher {name} ({facts['model']}) ran behind a server ({given.api}{version}), which wrote the training "
        f"answers. Asked twice, alone and together with others, it gave log-probabilities that differ by "
        f"{noise['mean']:.2g} nats on average and by {noise['largest']:.2g} at most.",
        f"It tells only the distributions of what it wrote: the {given.top_k:,} likeliest tokens of each, and the mass "
        "of all others. It predicts no other text, so no model is compared with it on held-out text.",
    ]


def _of_scoring(name: str, given: ScoringTeacher, facts: Mapping[str, Any]) -> list[str]:
    noise, version = facts["noise"], f" {facts['version']}" if facts["version"] else ""
    return [
        f"Teacher {name} ({facts['model']}) ran behind a server ({given.api}{version}). Asked twice, alone and "
        f"together with others, it gave log-probabilities that differ by {noise['mean']:.2g} nats on average and by "
        f"{noise['largest']:.2g} at most.",
        f"It tells the {given.top_k:,} likeliest tokens of each distribution, the text’s own token, and the mass "
        "of all others. So its loss is exact, and KL to the teacher is KL on these categories, which is a lower bound.",
    ]


def _price(given: ServerTeacher, total: Mapping[str, int]) -> str:
    if given.price is None:
        return ""
    price = given.price
    sum_of = total["tokens_read"] * price.per_million_read + total["tokens_written"] * price.per_million_written
    return f", for {sum_of / 1e6:,.2f} {price.currency}"
