"""Streams: a corpus that is read only as far as it is needed.

Documents are read one at a time. Only a 16-byte hash of each stays in memory, to split it and to find its repeats.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from potstill.data.documents import SourceCounts, texts, texts_of
from potstill.data.row_teachers import RowTeachers
from potstill.data.splitting import is_held_out
from potstill.data.stored_texts import TaughtText, hash_of
from potstill.recipe.corpus import Corpus, HeldOutText


@dataclass
class Stream:
    """A corpus whose sources stream. If it has separate held-out sources, they must be read first.

    Args:
        corpus: the recipe's section.
        tallies: the size of each source; filled while it is read.
        taught: says which teachers a row has; None where rows have none of their own.
    """

    corpus: Corpus
    tallies: dict[str, SourceCounts]
    taught: RowTeachers | None = None
    repeated: int = 0
    """The number of documents left out because they repeat an earlier one."""
    distinct: int = 0
    """The number of distinct training documents read so far."""
    ran_out: dict[str, int] = field(default_factory=dict)
    """The sources that were read to their end: their recipe keys, and the number of documents in each."""
    _seen: set[bytes] = field(default_factory=set)

    def held_out_text(self) -> Iterator[TaughtText]:
        """The distinct documents of `held_out.sources`; a document read here is never trained on.

        Raises:
            UserError: as ``documents.texts_of``.
        """
        apart, key = self.corpus.held_out, "corpus.held_out.sources"
        assert isinstance(apart, HeldOutText)
        taught = None if self.taught is None else RowTeachers(self.taught.rules)
        for document in texts(apart.sources, self.corpus.cleaning, key, self.tallies, taught):
            if self._is_new(hash_of(document.text)):
                yield document

    def training(self, hold_out: Callable[[TaughtText], None]) -> Iterator[TaughtText]:
        """The distinct training documents; documents of the held-out share are passed to `hold_out` instead.

        Raises:
            UserError: as ``documents.texts_of``.
        """
        share = self.corpus.held_out if isinstance(self.corpus.held_out, float) else 0.0
        for document in self._round_robin():
            hashed = hash_of(document.text)
            if not self._is_new(hashed):
                self.repeated += 1
            elif is_held_out(hashed, share):
                hold_out(document)
            else:
                self.distinct += 1
                yield document

    def _is_new(self, hashed: bytes) -> bool:
        before = len(self._seen)
        self._seen.add(hashed)
        return len(self._seen) > before

    def _round_robin(self) -> Iterator[TaughtText]:
        """One document of each source in turn, until all sources have run out."""
        keys = [f"corpus.sources.{index}" for index in range(len(self.corpus.sources))]
        live = {
            key: texts_of(source, self.corpus.cleaning, key, self.tallies, self.taught)
            for key, source in zip(keys, self.corpus.sources, strict=True)
        }
        read = dict.fromkeys(live, 0)
        while live:
            for key, source in list(live.items()):
                document = next(source, None)
                if document is None:
                    self.ran_out[key] = read[key]
                    del live[key]
                else:
                    read[key] += 1
                    yield document
