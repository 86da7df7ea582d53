"""Section `generation`: answers written, against transformers' `generate` in fixed batches.

Both write the same tokens. A random model would never end an answer, so a script ends each of them after a length of
its own: the lengths are those of GSM8K's questions and solutions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from benchmarks.aims import Measured
from benchmarks.models import Shape
from benchmarks.run import Settings, say
from benchmarks.table import Table
from benchmarks.timing import measure
from potstill.generation.continuous_batches import ContinuousBatches
from potstill.generation.decoding import Decoding, Key, Task, TokenChoice

END = 2
# fmt: off
LENGTHS = (
    (66, 63), (66, 151), (60, 78), (31, 84), (76, 201), (50, 58), (58, 151), (45, 127), (40, 116), (83, 137), (91, 114),
    (53, 89), (60, 111), (57, 105), (77, 234), (117, 107), (45, 76), (40, 100), (81, 208), (37, 207), (56, 125),
    (64, 58), (68, 119), (38, 63), (38, 114), (91, 210), (33, 124), (84, 80), (54, 120), (66, 165), (80, 86), (71, 270),
    (44, 62), (77, 101), (40, 70), (93, 111), (42, 143), (94, 228), (55, 56), (43, 68), (37, 86), (63, 159), (25, 57),
    (39, 125), (62, 89), (51, 88), (55, 124), (53, 44), (66, 231), (36, 129), (101, 183), (43, 141), (73, 214),
    (61, 176), (42, 77), (74, 186), (53, 71), (45, 167), (39, 176), (68, 185), (45, 160), (68, 150), (74, 112),
    (76, 175), (35, 126), (64, 140), (76, 155), (78, 145), (37, 86), (47, 116), (101, 99), (48, 63), (57, 59),
    (60, 137), (85, 224), (65, 94), (65, 136), (41, 110), (25, 190), (36, 77), (64, 99), (63, 90), (42, 61), (71, 134),
    (101, 75), (100, 217), (44, 78), (47, 76), (125, 189), (50, 178), (86, 138), (107, 206), (121, 85), (39, 69),
    (38, 84), (40, 141), (61, 138), (67, 200), (100, 109), (61, 135), (41, 158), (56, 126), (98, 281), (89, 152),
    (53, 140), (39, 70), (131, 220), (44, 143), (36, 73), (158, 181), (60, 92), (74, 75), (48, 68), (58, 87), (92, 99),
    (94, 144), (58, 143), (58, 112), (50, 156), (62, 115),
)
# fmt: on
"""Tokens of questions and solutions of GSM8K's test set, by SmolLM2's tokenizer: every eleventh."""


CASES = (
    ("generation", "1 to each question", 1, LENGTHS),
    ("generation", "4 to each question", 4, LENGTHS),
    ("generation, equal", "1 to each question, all of one length", 1, ((64, 128),)),
)
"""Answers to write: the aim, what is said of them, how many there are to a question, and the lengths of both."""


@dataclass(frozen=True)
class Work:
    """Responses to write with a model, and the length at which each one ends."""

    model: LlamaForCausalLM
    tasks: list[Task]
    lengths: dict[Key, int]
    batch_size: int

    @property
    def tokens(self) -> int:
        """All tokens to write, end tokens included."""
        return sum(self.lengths.values())


class _ScriptedEnds(TokenChoice):
    """The most probable token, or the end token where the script says so."""

    def __init__(self, work: Work) -> None:
        super().__init__(Decoding(max(work.lengths.values()), work.batch_size), [END], [END])
        self._lengths = work.lengths

    def random(self, key: Key) -> "_Countdown":  # type: ignore[override]
        return _Countdown(self._lengths[key])

    def __call__(self, logits: Tensor, randoms: "list[_Countdown]") -> Tensor:  # type: ignore[override]
        ended = torch.tensor([one.ends() for one in randoms], device=logits.device)
        return super().__call__(logits, []).masked_fill(ended, END)


@dataclass
class _Countdown:
    left: int

    def ends(self) -> bool:
        self.left -= 1
        return self.left == 0


class _ForcedEnds(LogitsProcessor):
    """The same script, for `generate`."""

    def __init__(self, lengths: Tensor, width: int) -> None:
        self._lengths, self._width = lengths, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, END] = -torch.inf
        scores[self._lengths == input_ids.shape[1] - self._width + 1, END] = torch.inf
        return scores


def continuous(work: Work) -> dict[Key, list[int]]:
    """The responses as potstill writes them."""
    writer, found = ContinuousBatches(work.model, _ScriptedEnds(work), work.batch_size, work.tasks), {}
    for at in range(0, len(work.tasks), writer.block_size):
        for ended in writer.write(work.tasks[at : at + writer.block_size]):
            found |= {one.key: one.ids for one in ended}
    return found


def fixed(work: Work) -> dict[Key, list[int]]:
    """The responses as `generate` writes them, one batch of similar prompts after another."""
    found, device = {}, work.model.device
    for at in range(0, len(work.tasks), work.batch_size):
        batch = work.tasks[at : at + work.batch_size]
        width, lengths = len(batch[0].prompt_ids), [work.lengths[one.key] for one in batch]
        pads = [width - len(one.prompt_ids) for one in batch]
        ids = [[0] * pad + one.prompt_ids for pad, one in zip(pads, batch, strict=True)]
        config = GenerationConfig(max_new_tokens=max(lengths), do_sample=False, eos_token_id=END, pad_token_id=0)
        written = work.model.generate(
            torch.tensor(ids, device=device),
            attention_mask=(torch.arange(width) >= torch.tensor(pads)[:, None]).long().to(device),
            generation_config=config,
            logits_processor=LogitsProcessorList([_ForcedEnds(torch.tensor(lengths, device=device), width)]),
        )[:, width:].tolist()
        found |= {one.key: ids[:length] for one, ids, length in zip(batch, written, lengths, strict=True)}
    return found


WRITERS: dict[str, Callable[[Work], dict[Key, list[int]]]] = {"potstill": continuous, "generate": fixed}


def section(settings: Settings) -> tuple[list[Table], list[Measured]]:
    """Measure answers written: the table, and the figures for the aim."""
    shape = Shape(vocabulary=49152, student_layers=2, length=512)
    batch_size, count = 16, 128
    if settings.quick:
        shape, batch_size, count = Shape(vocabulary=300, width=64, student_layers=2, length=512), 4, 16
    torch.manual_seed(0)
    model = LlamaForCausalLM(shape.config(shape.student_layers)).to(settings.device).eval()
    table = Table(
        f"Answers written: V = {shape.vocabulary}, H = {shape.width}, {shape.student_layers} layers, fp32, "
        f"batches of {batch_size}",
        ("answers", "tokens", "tokens/s, potstill", "tokens/s, `generate`", "ratio: median (best)", "same tokens"),
        "Prompts and answers are as long as GSM8K's; in the last row, nothing is won by replacing answers that have "
        "ended. `generate` has fixed batches of prompts of similar length.",
    )
    measured = []
    for aim, name, samples, lengths in CASES:
        say(f"generation: {name}")
        work = scripted(model, count // samples, samples, batch_size, lengths)
        # A round takes minutes, and tells of thousands of steps.
        times = measure({one: partial(write, work) for one, write in WRITERS.items()}, 2, settings.device)
        few = replace(work, tasks=work.tasks[:batch_size])
        same = continuous(few) == fixed(few)
        ratio = times.ratio("generate", ["potstill"])
        rates = [f"{work.tokens / times.median(one):,.0f}" for one in WRITERS]
        table.add(f"{len(work.tasks)}, {name}", f"{work.tokens:,}", *rates, str(ratio), "yes" if same else "**no**")
        measured.append(Measured(aim, ratio, name))
    return [table], measured


def scripted(
    model: LlamaForCausalLM, questions: int, samples: int, batch_size: int, given: Sequence[tuple[int, int]] = LENGTHS
) -> Work:
    """Random questions of given lengths; the samples of a question have the lengths of several solutions."""
    draw = torch.Generator().manual_seed(0)
    vocabulary = model.config.vocab_size
    tasks, lengths = list[Task](), dict[Key, int]()
    for question in range(questions):
        prompt = torch.randint(END + 1, vocabulary, (given[question % len(given)][0],), generator=draw).tolist()
        for sample in range(samples):
            key = str(question), sample
            tasks.append(Task(key, prompt))
            lengths[key] = given[(question + sample * questions) % len(given)][1]
    return Work(model, sorted(tasks, key=lambda one: -len(one.prompt_ids)), lengths, batch_size)
