"""Tokenizers: trains, reads, cuts and fingerprints them, and refuses to compare models with different tokens."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from potstill.errors import UserError, first_line
from potstill.files.named_files import named_path
from potstill.recipe.tokenizer import TokenizerBase, TokenizerFile, TrainedTokenizer

ROLES = ("pad_token", "bos_token", "eos_token")


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """The SHA-256 of everything that turns text into ids: the whole fast tokenizer, or else its vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    if backend is not None:
        # A tokenizer stores its last truncation and padding, which are not part of it.
        content |= {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_same_tokens(ours: Any, theirs: Any, our_name: str, their_name: str, remedy: str) -> None:
    """Refuse two tokenizers that do not give every id the same string.

    Args:
        ours: one tokenizer.
        theirs: the other tokenizer.
        our_name: the first tokenizer's name in the message.
        their_name: the second tokenizer's name in the message.
        remedy: what the message tells the user to do.

    Raises:
        UserError: names both tokenizers and the first token in which they differ.
    """
    one, other = ours.get_vocab(), theirs.get_vocab()
    if one == other:
        return
    token = min(one.items() ^ other.items(), key=lambda item: item[1])[0]
    raise UserError(
        f"{our_name} and {their_name} have different tokenizers ({len(one):,} and {len(other):,} tokens; {token!r} is "
        f"{one.get(token)} in the one and {other.get(token)} in the other); {remedy}"
    )


def check_other_tokens(loss: str, ours: Any, teachers: Mapping[str, Any]) -> None:
    """Refuse a loss for a teacher of another tokenizer, where every teacher has the student's.

    Args:
        loss: the kind of the loss.
        ours: the student's tokenizer.
        teachers: the tokenizers of the teachers, by their names in the message.

    Raises:
        UserError: every token has one id in all of them.
    """
    if all(ours.get_vocab() == theirs.get_vocab() for theirs in teachers.values()):
        has = "have" if len(teachers) > 1 else "has"
        raise UserError(
            f"{loss} is for a teacher of another tokenizer, but {' and '.join(teachers)} {has} the student's own; use "
            "forward_kl, which compares every token of both distributions"
        )


def train_tokenizer(documents: Sequence[str], settings: TrainedTokenizer) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with the settings of Baby Llama (arXiv:2308.02019, section 3).

    Its alphabet has all 256 bytes. The published tokenizer has only the 203 bytes of its text and silently drops any
    other byte that it reads.

    Raises:
        UserError: there is no text, or too little text for so many tokens.
    """
    if not any(document.strip() for document in documents):
        raise UserError(
            "`tokenizer.vocab_size`: there is no training text to train a tokenizer on; see `corpus.sources`"
        )
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFKC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=settings.min_frequency,
        special_tokens=[settings.pad_token, settings.bos_token, settings.eos_token],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer, length=len(documents))
    if bpe.get_vocab_size() < settings.vocab_size:
        raise UserError(
            f"`tokenizer.vocab_size` is {settings.vocab_size:,}, but the training text yields only "
            f"{bpe.get_vocab_size():,} tokens that occur {settings.min_frequency} times; lower it, or give more text"
        )
    return _with_roles(bpe, settings)


def read_tokenizer(settings: TokenizerFile) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a `tokenizer.json`.

    Raises:
        UserError: the file is no tokenizer.json, or it lacks a special token.
    """
    try:
        whole = Tokenizer.from_file(str(named_path(settings.file)))
    except Exception as error:  # the library raises no narrower exception
        raise UserError(f"`tokenizer.file`: {settings.file} is no tokenizer.json: {first_line(error)}") from error
    for role in ROLES:
        if whole.token_to_id(getattr(settings, role)) is None:
            raise UserError(
                f"`tokenizer.{role}`: {settings.file} has no token {getattr(settings, role)!r}; name one that it has"
            )
    return _with_roles(whole, settings)


def cut_tokenizer(whole: Any, tokens: int, name: str) -> PreTrainedTokenizerFast:
    """Cut the last-learned tokens off a BPE tokenizer; the other ids and everything around the model stay.

    Merges are learned and numbered one after the other. So the first merges are those of the smaller tokenizer that the
    same text would have given.

    Args:
        whole: the tokenizer.
        tokens: the number of first ids to keep.
        name: its name in messages.

    Raises:
        UserError: it is no BPE, has fewer tokens, or would lose a special token, a byte or a part of a kept token.
    """
    key = f"`tokenizer.vocab_size` is {tokens:,}, but"
    content = json.loads(whole.backend_tokenizer.to_str()) if getattr(whole, "backend_tokenizer", None) else {}
    model = content.get("model", {})
    if model.get("type") != "BPE":
        raise UserError(
            f"`tokenizer.teacher`: the tokenizer of {name} is no BPE, so its merges cannot be cut; leave it out"
        )
    last = [one for one in content["added_tokens"] if one["special"] and one["id"] >= tokens]
    if last:
        raise UserError(
            f"{key} the special token {last[0]['content']!r} of {name} has id {last[0]['id']:,}, and ids stay what "
            "they are: a tokenizer with its special tokens at the end cannot be cut; leave `tokenizer` out"
        )
    kept = {token: number for token, number in whole.get_vocab().items() if number < tokens}
    if len(kept) < tokens:
        raise UserError(f"{key} {name} has only {len(kept):,} tokens with lower ids; give {len(kept):,} or fewer")
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    left = [merge for merge in merges if {*merge, "".join(merge)} <= kept.keys()]
    reached = {"".join(merge) for merge in left}
    added = {one["content"] for one in content["added_tokens"]}
    alphabet = (token for token in model["vocab"] if re.fullmatch(r".|<0x[0-9A-F]{2}>", token) and token not in added)
    of_kept = (part for merge in merges if (one := "".join(merge)) in kept and one not in reached for part in merge)
    lost = next((token for token in (*alphabet, *of_kept) if token not in kept), None)
    if lost is not None:
        raise UserError(
            f"{key} {lost!r}, a part of other tokens of {name}, has id {model['vocab'][lost]:,}; give "
            "more, or leave `tokenizer` out"
        )
    model["vocab"] = {token: number for token, number in model["vocab"].items() if token in kept}
    model["merges"] = left
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < tokens]
    # The last truncation and padding are not part of a tokenizer.
    content |= {"truncation": None, "padding": None}
    cut = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        clean_up_tokenization_spaces=False,
        **whole.special_tokens_map,
    )
    cut.chat_template = getattr(whole, "chat_template", None)
    return cut


def _with_roles(tokenizer: Tokenizer, settings: TokenizerBase) -> PreTrainedTokenizerFast:
    roles = {role: getattr(settings, role) for role in ROLES}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **roles)
