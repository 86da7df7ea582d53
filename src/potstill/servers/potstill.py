"""`potstill serve`, asked for a teacher's facts, head, tokenizer and hidden states."""

from dataclasses import replace

import torch
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from potstill.errors import UserError
from potstill.models.head import Head
from potstill.models.head_bytes import bytes_digest, head_of_bytes
from potstill.servers.client import Client
from potstill.servers.hidden_states_format import (
    FORMAT,
    TOKENIZER_FILES,
    HiddenRequest,
    HostFacts,
    TeacherFacts,
    hidden_of_answer,
)

_FACTS, _FILES = TypeAdapter(HostFacts), TypeAdapter(dict[str, str])


class PotstillApi:
    """A server that `potstill serve` started. Its methods may be called from any thread.

    Every method raises ``UserError`` where the server refuses, fails, or answers something else than it should.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    def facts(self) -> HostFacts:
        """What the server says of itself and of its teacher."""
        body = self.client.request("GET", "/v1/facts").content
        try:
            found = _FACTS.validate_json(body)
        except ValidationError as error:
            raise self._wrong("is no `potstill serve` of this version; start it with this version") from error
        if found.format != FORMAT:
            raise self._wrong(f"is potstill {found.version}, whose messages differ; start it with this version")
        return found

    def check_unchanged(self, known: TeacherFacts) -> HostFacts:
        """The server's facts, if its teacher is the one that is known.

        Raises:
            UserError: the server has another teacher now.
        """
        facts = self.facts()
        if replace(facts.teacher, model=known.model) != known:
            raise self._wrong(
                f"has another teacher now ({facts.teacher.model}), or the same in another number format, than this run "
                "began with; serve the first one again, or give this teacher another name, which begins anew"
            )
        return facts

    def head(self, teacher: TeacherFacts) -> bytes:
        """The matrices of the teacher's head, as :func:`head_of` takes them."""
        found = self.client.request("GET", "/v1/head").content
        if bytes_digest(found) != teacher.head.fingerprint:
            raise self._wrong("gave another head than it promised; start the run again")
        return found

    def tokenizer(self) -> dict[str, str]:
        """The text of each of the tokenizer's files, by name."""
        body = self.client.request("GET", "/v1/tokenizer").content
        try:
            found = _FILES.validate_json(body)
        except ValidationError as error:
            raise self._wrong("gave no tokenizer; start it with this version of potstill") from error
        return {name: found[name] for name in TOKENIZER_FILES if name in found}

    def hidden(self, request: HiddenRequest, teacher: TeacherFacts) -> Float[Tensor, "N H"]:
        """The hidden states that a request asks for. The server refuses it if it has another teacher by now."""
        path = f"/v1/hidden?teacher={teacher.fingerprint}"
        body = self.client.request("POST", path, content=request.to_bytes()).content
        self.client.count_tokens(len(request.ids))
        try:
            found = hidden_of_answer(body)
        except ValueError as error:
            raise self._wrong(f"gave a damaged answer ({error}); start the run again") from error
        if found.shape != (request.asked, teacher.hidden_size) or str(found.dtype) != f"torch.{teacher.dtype}":
            raise self._wrong(
                f"gave {list(found.shape)} hidden numbers in {found.dtype} for {request.asked:,} tokens; start it again"
            )
        if not torch.isfinite(found).all():
            raise self._wrong(
                "gave hidden states that are not all numbers (NaN or infinite); serve the teacher with "
                "`--set dtype=float32`"
            )
        return found

    def _wrong(self, what: str) -> UserError:
        here = self.client.connection
        return UserError(f"{here.setting}: {here.url} {what}")


def head_of(saved: bytes, teacher: TeacherFacts, device: torch.device) -> Head:
    """The teacher's head, of the matrices that its server gave."""
    return head_of_bytes(saved, vars(teacher.head), device)
