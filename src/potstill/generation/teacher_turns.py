"""Teacher turns: a teacher writes turns of conversations, each after the turns that it has written before."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from potstill.data.conversations.chat_template import ChatTemplate, TemplateRefusedError
from potstill.data.conversations.conversation import Conversation
from potstill.data.conversations.parts import message_of
from potstill.data.conversations.prompt import plain_messages, turn_prompt_ids
from potstill.generation.answer_rules import fault, nearest
from potstill.generation.decoding import Request
from potstill.generation.generate import Response
from potstill.recipe.generate import Generate

Ask = Callable[[Sequence[Request], int], Sequence[Response]]
"""Lets the teacher respond to requests, so many times to each."""

Reads = Callable[[Conversation], Conversation]
"""Gives what a teacher reads in place of a conversation."""


@dataclass(frozen=True)
class WrittenTurn:
    """A turn that the teacher wrote."""

    message: int
    """Its number among the messages, from 0."""
    sample: int
    tokens: int
    """Without the end token."""


@dataclass(frozen=True)
class Draft:
    """A conversation whose turns are being written."""

    id: str
    """The conversation's id, and the number of the draft."""
    conversation: Conversation
    left: tuple[int, ...]
    """The messages that are still to be written, by their numbers."""
    written: tuple[WrittenTurn, ...] = ()

    @property
    def request_id(self) -> str:
        """Identifies the turn that is written next."""
        return f"{self.id}/{self.left[0]}"

    def with_turn(self, one: Response, number: int | None) -> "Draft":
        """The draft with a response as its next turn; `number` tells it from other drafts of the conversation."""
        at = self.left[0]
        given = {"role": "assistant", "content": one.response}
        turn = message_of(given, ("role", "content"), {}, self.conversation.where)
        messages = list(self.conversation.messages)
        messages[at] = replace(turn, learn=messages[at].learn)
        return Draft(
            self.id if number is None else f"{self.id}#{number}",
            replace(self.conversation, messages=tuple(messages)),
            self.left[1:],
            (*self.written, WrittenTurn(at, one.sample, one.tokens)),
        )

    def up_to_here(self) -> "Draft":
        """The draft without the turn that is written next, and without what follows."""
        messages = self.conversation.messages[: self.left[0]]
        return replace(self, conversation=replace(self.conversation, messages=messages), left=())


@dataclass
class TurnCounts:
    """Counts of conversations and of the turns that a teacher wrote."""

    conversations: int = 0
    responses: int = 0
    hit_limit: int = 0
    """Responses that reached the limit of tokens without an end token."""
    refused: Counter[str] = field(default_factory=Counter)
    """Responses that may not be learned, by reason."""
    repeated: int = 0
    """Responses left out only because they repeat an earlier response to the same turn."""
    turns: int = 0
    """Turns of kept conversations that the teacher wrote."""
    turns_with_calls: int = 0
    """Turns that stay as they are in the data, because they call a tool."""
    as_they_are: int = 0
    """Kept conversations in which the teacher wrote no turn, because all of its turns call tools."""
    shortened: int = 0
    """Kept conversations that end before a turn without a usable response."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Conversations that are left out, by reason."""
    kept: int = 0

    def as_json(self) -> dict[str, Any]:
        """The counts, and those by reason as dictionaries."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}

    def __str__(self) -> str:
        """One line for the console."""
        found = [f"{self.kept:,} conversations kept, with {self.turns:,} turns of the teacher"]
        found += (
            [f"{self.turns_with_calls:,} turns that call tools are as in the data"] if self.turns_with_calls else []
        )
        found += [f"{self.shortened:,} conversations end before a turn that was refused"] if self.shortened else []
        found += [f"{count:,} dropped: {reason}" for reason, count in self.dropped.most_common()]
        found += [f"{count:,} of {self.responses:,} answers: {reason}" for reason, count in self.refused.most_common()]
        return "; ".join(found)


class TurnWriter:
    """Lets a teacher write turns of conversations, the first turn of all of them, then the second, and so on.

    Args:
        generate: the recipe's section.
        template: the teacher's chat template.
        room: the most tokens of a prompt.
        ask: lets the teacher respond.
        reads: what the teacher reads in place of a conversation. None: the same.
    """

    def __init__(
        self, generate: Generate, template: ChatTemplate, room: int, ask: Ask, reads: Reads | None = None
    ) -> None:
        self.counts = TurnCounts()
        self._generate, self._template, self._room, self._ask = generate, template, room, ask
        self._reads = reads

    def write(self, conversations: Mapping[str, Conversation]) -> list[Draft]:
        """The conversations to learn from, by their ids, in the same order; several of one that has several samples."""
        self.counts.conversations = len(conversations)
        drafts = [self._begun(name, conversation) for name, conversation in conversations.items()]
        while any(draft.left for draft in drafts):
            drafts = self._round(drafts)
        self._count(drafts)
        return drafts

    def _begun(self, name: str, conversation: Conversation) -> Draft:
        turns = [at for at, message in enumerate(conversation.messages) if message.role == "assistant"]
        turns = turns if self._generate.turns == "each" else turns[-1:]
        left = tuple(at for at in turns if not conversation.messages[at].calls)
        self.counts.turns_with_calls += len(turns) - len(left)
        return Draft(name, conversation, left)

    def _round(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Write the next turn of each draft."""
        requests = {draft.id: self._request(draft) for draft in drafts if draft.left}
        first = all(not draft.written for draft in drafts)
        several = self._generate.samples if first or self._generate.keep == "nearest" else 1
        found: dict[str, list[Response]] = {}
        for one in self._ask([request for request in requests.values() if isinstance(request, Request)], several):
            found.setdefault(one.id, []).append(one)
        nexts = []
        for draft in drafts:
            request = requests.get(draft.id)
            if request is None:
                nexts.append(draft)
            elif isinstance(request, str):
                nexts += self._without_turn(draft, request)
            else:
                nexts += self._with_responses(draft, sorted(found[request.id], key=lambda one: one.sample))
        return nexts

    def _request(self, draft: Draft) -> Request | str:
        """The prompt for a draft's next turn, or why there is none."""
        conversation = draft.up_to_here().conversation
        shown = conversation if self._reads is None else self._reads(conversation)
        try:
            ids = turn_prompt_ids(shown.messages, self._template, shown.tools)
        except TemplateRefusedError as error:
            return f"the chat template refuses it ({error})"
        messages = plain_messages(shown.messages, shown.tools)
        return Request(draft.request_id, ids, messages) if len(ids) <= self._room else "leaves no room for an answer"

    def _with_responses(self, draft: Draft, responses: Sequence[Response]) -> Iterator[Draft]:
        usable: list[Response] = []
        for one in responses:
            why = fault(one, self._generate) or self._fault_here(one)
            self.counts.responses += 1
            self.counts.hit_limit += one.hit_limit
            if why is not None:
                self.counts.refused[why] += 1
            elif one.response.strip() in (other.response.strip() for other in usable):
                self.counts.repeated += 1
            else:
                usable.append(one)
        if not usable:
            yield from self._without_turn(draft, "no answer of the teacher may be learned")
            return
        if self._generate.keep == "nearest":
            usable = [nearest(usable, draft.conversation.messages[draft.left[0]].content)]
        for one in usable:
            yield draft.with_turn(one, one.sample if len(responses) > 1 and self._generate.keep == "all" else None)

    def _fault_here(self, one: Response) -> str | None:
        turn = message_of({"role": "assistant", "content": one.response}, ("role", "content"), {}, one.id)
        if turn.calls:
            return "calls a tool where the data does not"
        if not turn.content.strip():
            return "is blank"
        if any(token in one.response for token in self._template.control_tokens):
            return "holds a special token of the chat template"
        return None

    def _without_turn(self, draft: Draft, reason: str) -> Iterator[Draft]:
        if draft.written:
            self.counts.shortened += 1
            yield draft.up_to_here()
        else:
            self.counts.dropped[reason] += 1

    def _count(self, drafts: Sequence[Draft]) -> None:
        self.counts.kept = len(drafts)
        self.counts.turns = sum(len(draft.written) for draft in drafts)
        self.counts.as_they_are = sum(not draft.written for draft in drafts)
