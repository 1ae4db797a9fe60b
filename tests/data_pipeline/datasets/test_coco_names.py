"""Categories of COCO that train those of videos, in the recipes of VidEoMT."""

import pytest

from data_pipeline.datasets.coco import match_categories
from data_pipeline.datasets.dataset import Category
from tests.data_pipeline.datasets.test_joint_videos import OVIS, YTVIS_2019, numbered
from tests.recipes import recipe

# COCO's ids of the categories below, and the ids of a data set that they train.
COCO = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus",
    7: "train", 8: "truck", 9: "boat", 16: "bird", 17: "cat", 18: "dog", 19: "horse",
    20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    34: "frisbee", 35: "skis", 36: "snowboard", 41: "skateboard", 42: "surfboard",
    43: "tennis racket", 74: "mouse",
}  # fmt: skip
YTVIS_2021 = (
    "airplane,bear,bird,boat,car,cat,cow,deer,dog,duck,earless_seal,elephant,fish"
    ",flying_disc,fox,frog,giant_panda,giraffe,horse,leopard,lizard,monkey,motorbike"
    ",mouse,parrot,person,rabbit,shark,skateboard,snake,snowboard,squirrel,surfboard"
    ",tennis_racket,tiger,train,truck,turtle,whale,zebra"
)
MATCHED = {
    "ytvis2019": (YTVIS_2019, {
        1: 1, 2: 21, 3: 6, 4: 21, 5: 28, 7: 17, 8: 29, 9: 34, 17: 14, 18: 8, 19: 18,
        21: 15, 22: 32, 23: 20, 24: 30, 25: 22, 35: 33, 36: 33, 41: 5, 42: 27, 43: 40,
    }),
    "ytvis2021": (YTVIS_2021, {
        1: 26, 2: 23, 3: 5, 4: 23, 5: 1, 7: 36, 8: 37, 9: 4, 16: 3, 17: 6, 18: 9,
        19: 19, 21: 7, 22: 12, 23: 2, 24: 40, 25: 18, 34: 14, 35: 31, 36: 31, 41: 29,
        42: 33, 43: 34,
    }),
    "ovis": (OVIS.replace("Vehicle", "Vehical"), {
        1: 1, 2: 21, 3: 25, 4: 22, 5: 23, 6: 25, 8: 25, 9: 24, 17: 3, 18: 4, 19: 5,
        20: 6, 21: 7, 22: 8, 23: 9, 24: 10, 25: 11,
    }),
}  # fmt: skip


@pytest.mark.parametrize("dataset", MATCHED)
@pytest.mark.parametrize("name", ["videomt", "lvmt", "eomt"])
def test_categories_of_coco_train_those_that_the_authors_list(name, dataset):
    listed, expected = MATCHED[dataset]
    coco = [Category(k, title) for k, title in COCO.items()]
    names = recipe(name, f"dataset={dataset}").data.stills.names
    labels = match_categories(coco, numbered(listed), names)
    found = {k: label + 1 for k, label in labels.items() if label is not None}
    assert found == expected
