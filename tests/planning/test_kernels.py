"""The rates of kernels are measured in each format and length, and are above zero."""

from potstill.planning.kernels import LENGTHS, attention_rates, elementwise_rate, new_memory_rate
from potstill.planning.trace import DTYPES


def test_attention_is_measured_in_each_format_and_length():
    found = attention_rates()
    assert set(found) == {(name, length) for name in DTYPES for length in LENGTHS}
    assert all(one.forward > 0 and one.backward > 0 for one in found.values())


def test_operations_on_each_element_are_measured():
    assert elementwise_rate() > 0


def test_new_memory_is_measured():
    assert new_memory_rate() > 0
