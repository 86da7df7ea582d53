from potstill.data.column_names import column_names


def test_a_message_names_the_columns_that_are_there():
    assert column_names({"text": "a", "labels": None, "kind": 1}) == "only `text`, `kind`"
    assert column_names({"text": None}) == "no column that is not null"
