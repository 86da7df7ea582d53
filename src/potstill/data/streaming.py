"""Streams: the documents of a corpus that is read only as far as it is needed.

Documents pass by one at a time; what stays of each is a hash of 16 bytes, by which it is split and known again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from potstill.data.documents import SourceCounts, texts, texts_of
from potstill.data.splitting import hash_of, is_held_out
from potstill.recipe.corpus import Corpus, HeldOutText


@dataclass
class Stream:
    """A corpus whose sources stream; its held-out text of its own, where it has one, must be read first.

    Args:
        corpus: the recipe's section.
        tallies: what each source gave, filled while it is read.
    """

    corpus: Corpus
    tallies: dict[str, SourceCounts]
    repeated: int = 0
    """How many documents were left out because they had occurred before."""
    distinct: int = 0
    """How many training documents were read."""
    ran_out: dict[str, int] = field(default_factory=dict)
    """The sources that were read to their end, by their keys, and how many documents each had."""
    _seen: set[bytes] = field(default_factory=set)

    def held_out_text(self) -> Iterator[str]:
        """The distinct documents of `held_out.sources`; none that has been asked for is trained on.

        Raises:
            UserError: as ``corpus.texts_of``.
        """
        apart, key = self.corpus.held_out, "corpus.held_out.sources"
        assert isinstance(apart, HeldOutText)
        for text in texts(apart.sources, self.corpus.cleaning, key, self.tallies):
            if self._is_new(hash_of(text)):
                yield text

    def training(self, hold_out: Callable[[str], None]) -> Iterator[str]:
        """The distinct training documents; what belongs to the held-out share goes to `hold_out` as it passes.

        Raises:
            UserError: as ``corpus.texts_of``.
        """
        share = self.corpus.held_out if isinstance(self.corpus.held_out, float) else 0.0
        for text in self._in_turn():
            hashed = hash_of(text)
            if not self._is_new(hashed):
                self.repeated += 1
            elif is_held_out(hashed, share):
                hold_out(text)
            else:
                self.distinct += 1
                yield text

    def _is_new(self, hashed: bytes) -> bool:
        before = len(self._seen)
        self._seen.add(hashed)
        return len(self._seen) > before

    def _in_turn(self) -> Iterator[str]:
        """A document of each source, and again, until all have run out."""
        keys = [f"corpus.sources.{index}" for index in range(len(self.corpus.sources))]
        live = {
            key: texts_of(source, self.corpus.cleaning, key, self.tallies)
            for key, source in zip(keys, self.corpus.sources, strict=True)
        }
        read = dict.fromkeys(live, 0)
        while live:
            for key, source in list(live.items()):
                text = next(source, None)
                if text is None:
                    self.ran_out[key] = read[key]
                    del live[key]
                else:
                    read[key] += 1
                    yield text
