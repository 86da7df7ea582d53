"""Continuous batches: a finished response makes room for the next, and samples of a question share its prompt.

In a fixed batch all rows wait for the longest response. Here a row leaves when it ends, and others join in its place.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from random import Random

from transformers import PreTrainedModel

from potstill.generation.decoding import Task, TokenChoice, Written
from potstill.generation.row_batch import RowBatch
from potstill.generation.row_cache import States
from potstill.models.causality import input_device

_BATCHES = 8
"""The size of a block, in batches. A larger one would have its last, half empty steps less often, but a stop would cost
more: its block is written again."""


@dataclass
class _Row:
    """A response that is being written."""

    task: Task
    random: Random
    ids: list[int] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The token to read next. The prompt's last token is read with the batch, so that it gives the first logits."""
        return self.ids[-1] if self.ids else self.task.prompt_ids[-1]


class ContinuousBatches:
    """Writes responses with a model that ``generation.row_batch.continues_rows``.

    Args:
        model: the model.
        choose: chooses the tokens, and ends the responses.
        size: the greatest number of responses written at a time.
        tasks: all responses that will be asked for.
    """

    def __init__(self, model: PreTrainedModel, choose: TokenChoice, size: int, tasks: Sequence[Task]) -> None:
        self.block_size = _BATCHES * size
        # The last token of each prompt is read with the batch.
        shared = _common_beginning([one.prompt_ids[:-1] for one in tasks])
        most = max(len(one.prompt_ids) for one in tasks) + choose.most
        self._choose, self._size = choose, min(size, len(tasks))
        self._batch = RowBatch(model, self._size, shared, most)
        self._prompts: dict[str, tuple[States, int]] = {}
        # Reading one prompt takes a GPU as long as a step of the whole batch, so there several are read at a time.
        self._free_to_read = 1 if input_device(model).type == "cpu" else size / 8

    def write(self, tasks: Sequence[Task]) -> Iterator[list[Written]]:
        """Write a block of responses, and yield those that end at the same time.

        ``tasks`` alone decide which rows are computed together at each step, so that the same block always gives the
        same responses: how sums are rounded depends on the number of rows.
        """
        self._batch.clear()
        # Of a block that was left in the middle.
        self._prompts = {}
        waiting, rows = deque(tasks), list[_Row]()
        while waiting or rows:
            free = self._size - len(rows)
            if waiting and (not rows or free >= self._free_to_read):
                rows += self._admitted([waiting.popleft() for _ in range(min(free, len(waiting)))])
            self._keep_prompt_of_next(waiting)
            logits = self._batch.logits([row.last for row in rows])
            for row, token in zip(rows, self._choose(logits, [row.random for row in rows]).tolist(), strict=True):
                row.ids.append(token)
            if ended := self._ended(rows):
                yield ended

    def _admitted(self, tasks: list[Task]) -> list[_Row]:
        unread = {one.key[0]: one.prompt_ids[:-1] for one in tasks if one.key[0] not in self._prompts}
        if unread:
            states = self._batch.read([*unread.values()])
            self._prompts |= {question: (states, row) for row, question in enumerate(unread)}
        for one in tasks:
            states, row = self._prompts[one.key[0]]
            self._batch.join(states, row, len(one.prompt_ids) - 1)
        return [_Row(one, self._choose.random(one.key)) for one in tasks]

    def _keep_prompt_of_next(self, waiting: Sequence[Task]) -> None:
        """Keep only the prompt that the next response begins with."""
        wanted = {one.key[0] for one in islice(waiting, 1)}
        self._prompts = {question: kept for question, kept in self._prompts.items() if question in wanted}

    def _ended(self, rows: list[_Row]) -> list[Written]:
        """Take the whole responses out of the rows."""
        ended = []
        # Backwards, because the last row takes the place of one that leaves.
        for at in reversed(range(len(rows))):
            if self._choose.is_whole(rows[at].ids):
                ended.append(Written(rows[at].task.key, rows[at].ids))
                self._batch.leave(at)
                rows[at] = rows[-1]
                rows.pop()
        return ended


def _common_beginning(prompts: Sequence[list[int]]) -> list[int]:
    # What the first and the last in the order of a dictionary have in common, all have.
    pairs = zip(min(prompts), max(prompts), strict=False)
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
