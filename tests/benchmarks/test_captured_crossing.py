"""Steps from captured spans: what the store says, and the definition that the loss is checked against."""

from pathlib import Path

import pytest
import torch

from benchmarks.captured_crossing import LOSSES, SpanReader, captured_problem, write_store
from benchmarks.crossing import Size, make_text
from benchmarks.crossing_models import CrossingPair, Text
from benchmarks.crossing_variants import CE, CrossingChecker, crossing
from benchmarks.models import Shape, our_loss
from potstill.losses.teacher_target import SpanTarget
from tiny import documents

SIZES = Size(300, 400, Shape(400, 64, 1, 1, rows=2, length=24))


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[CrossingPair, Text, Path]:
    folder = tmp_path_factory.mktemp("store")
    text = make_text(SIZES, documents(60, seed=5), batches=2)
    sizes, device = (SIZES.ours, SIZES.theirs), torch.device("cpu")
    pair = CrossingPair(SIZES.shape, sizes, text.rows(0, 2), torch.float32, device, text.longest)
    write_store(folder, pair, text)
    return pair, text, folder


def target_of(captured: tuple[CrossingPair, Text, Path]) -> SpanTarget:
    _, target = SpanReader(*captured).next()
    assert target is not None
    return target


def test_the_store_says_what_the_live_teacher_says(captured: tuple[CrossingPair, Text, Path]) -> None:
    found, live = target_of(captured), captured[0].problem.target_of(LOSSES)
    assert found.spans.tolist() == live.spans.tolist()
    assert found.used.tolist() == live.used.tolist()
    torch.testing.assert_close(found.log_q[found.used], live.log_q[live.used], atol=1e-2, rtol=1e-3)


def test_each_batch_is_read_in_turn(captured: tuple[CrossingPair, Text, Path]) -> None:
    reader = SpanReader(*captured)
    first, second, again = (reader.next()[0]["input_ids"].tolist() for _ in range(3))
    assert first == again
    assert first != second


def test_without_a_store_it_reads_the_same_samples_and_no_target(captured: tuple[CrossingPair, Text, Path]) -> None:
    pair, text, _ = captured
    batch, target = SpanReader(pair, text, None).next()
    assert target is None
    assert batch["input_ids"].tolist() == SpanReader(*captured).next()[0]["input_ids"].tolist()
    losses = [pair.student(**batch).loss.item(), our_loss(pair.student, pair.head, batch, None, (CE,)).item()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_our_loss_is_its_definition(captured: tuple[CrossingPair, Text, Path]) -> None:
    problem = captured_problem(captured[0], target_of(captured))
    assert CrossingChecker(problem).errors(crossing("alm")).refusal is None
