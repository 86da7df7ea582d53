"""Texts in a file come back as they were, in any order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from potstill.data.stored_texts import TextStore, hash_of


@given(st.lists(st.text(max_size=5), max_size=20), st.data())
def test_texts_come_back_in_any_order(texts, data):
    store = TextStore()
    for text in texts:
        store.add(text)
    places = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=30)) if texts else []
    found = store.texts(np.array(places, np.int64))
    assert list(found) == [texts[place] for place in places]
    assert list(found[1:]) == [texts[place] for place in places[1:]]
    store.add("more")
    assert list(found) == [texts[place] for place in places]


@given(st.lists(st.text(max_size=2), max_size=20))
def test_distinct_texts_come_in_the_order_of_their_hashes(texts):
    store = TextStore()
    for text in texts:
        store.add(text)
    found = store.distinct().tolist()
    assert [texts[place] for place in found] == sorted(set(texts), key=hash_of)
    assert found == [texts.index(texts[place]) for place in found]


def test_the_file_lies_in_the_given_folder_and_leaves_nothing_there(tmp_path):
    store = TextStore(tmp_path)
    store.add("a")
    assert list(store.texts(store.distinct())) == ["a"]
    assert list(tmp_path.iterdir()) == []
