"""A real language model that is small enough for a test: stories260K, of 260K parameters, in llama2.c's own layout."""

import json
from functools import cache
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from potstill.teachers.llama2c import read_model, read_tokenizer

SHARED = Path(__file__).parents[2] / "shared" / "data"
FOLDER = SHARED / "stories260k"
CHECKPOINT, TOKENIZER = FOLDER / "stories260K.bin", FOLDER / "tok512.bin"
TEACHERS = json.dumps({"stories": {"llama2c": str(CHECKPOINT), "tokenizer": str(TOKENIZER)}})
"""As a recipe has it."""

TEXTS = (
    "One day, a little girl named Lily found a needle in her room. She knew it was difficult to play with it because "
    "it was sharp. Lily wanted to share the needle with her mom, so she could sew a button on her shirt.\n\n"
    'Lily went to her mom and said, "Mom, I found this needle. Can you share it with me and sew my shirt?" Her mom '
    'smiled and said, "Yes, Lily, we can share the needle and fix your shirt."\n\n'
    "Together, they shared the needle and sewed the button on Lily's shirt. It was not difficult for them because they "
    "were sharing and helping each other. After they finished, Lily thanked her mom for sharing the needle and fixing "
    "her shirt. They both felt happy because they had shared and worked together.",
    'Spot. Spot saw the shiny car and said, "Wow, Kitty, your car is so bright and clean!" Kitty smiled and replied, '
    '"Thank you, Spot. I polish it every day."\n\n'
    "After playing with the car, Kitty and Spot felt thirsty. They found a small pond with clear water. They drank the "
    "water and felt very happy. They played together all day and became best friends.",
    "Once upon a time, in a warm and sunny place, there was a big pit. A little boy named Tom liked to play near the "
    "pit. One day, Tom lost his red ball. He was very sad.\n"
    "Tom asked his friend, Sam, to help him search for the ball. They looked high and low, but they could not find the "
    'ball. Tom said, "I think my ball fell into the pit."\n'
    "Sam and Tom went close to the pit. They were scared, but they wanted to find the red ball. They looked into the "
    'pit, but it was too dark to see. Tom said, "We must go in and search for my ball."\n'
    "They went into the pit to search. It was dark and scary. They could not find the ball. They tried to get out, but "
    "the pit was too deep. Tom and Sam were stuck in the pit. They called for help, but no one could hear them. They "
    "were sad and scared, and they never got out of the pit.",
)
"""Three stories of TinyStories (arXiv:2305.07759; CDLA-Sharing-1.0): the first of its training split, the first of its
validation split, and the first whole one of its second version's validation split."""


@cache
def model() -> LlamaForCausalLM:
    return read_model(CHECKPOINT, "llama2c")


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    return read_tokenizer(TOKENIZER, "tokenizer", model().config.vocab_size)
