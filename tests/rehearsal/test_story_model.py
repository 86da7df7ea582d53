"""The stand-in of stories260K is read as the published files are, and has their sizes."""

import pytest
import torch

from potstill.files.named_data import named_data
from potstill.rehearsal.story_model import SHAPE, story_model_files
from potstill.teachers.llama2c import read_model, read_shape, read_tokenizer

TEXT = "The river rose, and 12 people went away."


@pytest.fixture
def files(tmp_path):
    """The model and its tokenizer."""
    made = []
    for name, content in story_model_files():
        made.append(tmp_path / name)
        made[-1].parent.mkdir(exist_ok=True)
        made[-1].write_bytes(content)
    return made


def test_it_is_read_as_a_model_with_its_tokenizer(files):
    model, tokenizer = read_model(files[0], "key"), read_tokenizer(files[1], "key", SHAPE.vocabulary)
    ids = tokenizer(TEXT).input_ids
    assert tokenizer.decode(ids) == TEXT
    # It has pairs of letters, and no byte of its own for any.
    assert len(ids) < 0.8 * len(TEXT)
    assert min(ids) > 258
    with torch.no_grad():
        assert model(torch.tensor([ids])).logits.isfinite().all()
    assert model.num_parameters() == 260_032


def test_it_has_the_published_sizes(files):
    found = named_data("stories260k").on_this_machine("model")
    if found is None:
        pytest.skip("stories260k is not here")
    ((published, _),) = found
    assert read_shape(published, "key") == SHAPE
    assert published.stat().st_size == files[0].stat().st_size
