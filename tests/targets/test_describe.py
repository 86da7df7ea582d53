from potstill.targets import describe
from potstill.targets.describe import samples_written


def test_it_says_what_a_store_holds(store, corpus) -> None:
    told = describe(store)
    assert told["provenance"]["teacher"] == "toy"
    assert told["codec"]["k"] == 8
    assert told["samples"] == told["samples_written"] == 40
    assert told["tokens"] == sum(dict(zip(corpus.keys, corpus.counts, strict=True)).values())
    assert told["shards"] == 3
    assert told["bytes_on_disk"] == sum(path.stat().st_size for path in store.iterdir())
    data = told["bytes_on_disk"] - (store / "store.json").stat().st_size
    assert told["bytes_per_token"] == data / told["tokens"]


def test_it_says_how_far_an_unfinished_one_is(tmp_path, corpus, write) -> None:
    write(tmp_path / "store", corpus, None, 4, 0, 2)
    assert describe(tmp_path / "store")["samples_written"] == samples_written(tmp_path / "store") == 24
