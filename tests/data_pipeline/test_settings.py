"""Choices by name that settings list and other modules make true."""

import typing

from configs import common
from data_pipeline.datasets.by_name import DATASETS
from data_pipeline.moving_shapes.motion import DIFFICULTIES
from data_pipeline.settings import NAMES, Shapes
from vis_jax.settings import fields_of


def test_every_name_of_a_data_set_has_a_reader_and_numbers_in_recipes():
    assert set(NAMES) == set(DATASETS)
    assert set(NAMES) == set(common.NUM_CLASSES) == set(common.TRAIN_FRAMES)


def test_every_difficulty_is_drawn():
    difficulty = fields_of(Shapes)["difficulty"].type
    assert typing.get_args(difficulty) == tuple(DIFFICULTIES)
