"""Two folders of videos trained on as one, with the categories of both."""

import json
from itertools import islice

import numpy as np
import pytest

from data_pipeline import numpy_pipeline
from data_pipeline.datasets.by_name import make_dataset, make_training_set
from data_pipeline.datasets.dataset import Category
from data_pipeline.datasets.joint_videos import join_categories
from data_pipeline.pipeline import train_batches
from data_pipeline.schema import check_batch
from data_pipeline.settings import OVIS_NAMES
from tests.data_pipeline.conftest import content, write_images
from tests.recipes import data_settings
from vis_jax.settings import to_dict

YTVIS_2019 = (
    "person,giant_panda,lizard,parrot,skateboard,sedan,ape,dog,snake,monkey,hand,rabbit"
    ",duck,cat,cow,fish,train,horse,turtle,bear,motorbike,giraffe,leopard,fox,deer,owl"
    ",surfboard,airplane,truck,zebra,tiger,elephant,snowboard,boat,shark,mouse,frog"
    ",eagle,earless_seal,tennis_racket"
)
OVIS = (
    "Person,Bird,Cat,Dog,Horse,Sheep,Cow,Elephant,Bear,Zebra,Giraffe,Poultry"
    ",Giant panda,Lizard,Parrot,Monkey,Rabbit,Tiger,Fish,Turtle,Bicycle,Motorcycle"
    ",Airplane,Boat,Vehicle"
)


def numbered(names):
    return tuple(Category(k, name) for k, name in enumerate(names.split(","), start=1))


def test_ovis_adds_two_categories_to_the_forty_of_youtube_vis():
    both, labels = join_categories(numbered(YTVIS_2019), numbered(OVIS), OVIS_NAMES)
    assert len(both) == 42
    assert both[40:] == (Category(41, "Sheep"), Category(42, "Bicycle"))
    found = {one.name: label for one, label in zip(numbered(OVIS), labels, strict=True)}
    assert both[found["Giant panda"]].name == "giant_panda"
    assert both[found["Vehicle"]].name == "sedan"
    assert len(set(labels)) == 25


def test_a_category_without_a_counterpart_is_added_or_left_out():
    first, second = numbered("dog,cat"), numbered("Cat,hen,fog,ox")
    names = (("hen", "dog"), ("fog", ""))
    both, labels = join_categories(first, second, names)
    assert labels == (1, 0, None, 2)
    assert both == (*first, Category(3, "ox"))


@pytest.fixture
def config(tmp_path):
    """Cats and ants in the first folder; in the second, ants are called bees."""
    for name in ("one", "two"):
        write_images(tmp_path / name / "JPEGImages")
        annotations = content()
        if name == "two":
            annotations["categories"] = [
                {"id": 7, "name": "dragon"},
                {"id": 3, "name": "Bee"},
            ]
            annotations["videos"] = annotations["videos"][:1]
            annotations["annotations"] = annotations["annotations"][:2]
        (tmp_path / name / "instances.json").write_text(json.dumps(annotations))
    joint = dict(root=str(tmp_path / "two"), names=(("bee", "ant"),))
    return data_settings(
        name="folder", root=str(tmp_path / "one"), joint=joint, frames=2, frame_range=3,
        short_side=(48,), canvas=(64, 96), instances=3, batch_size=3,
    )  # fmt: skip


def test_an_epoch_has_the_videos_of_both(config):
    dataset = make_training_set(config)
    assert [one.name for one in dataset.categories] == ["ant", "cat", "dragon"]
    assert dataset.summary() == "2 and 1 of the second set; categories it adds: dragon"
    batches = list(islice(train_batches(dataset, config, seed=0, start_step=0), 3))
    for batch in batches:
        check_batch(batch, B=3, T=2, M=3)
        # By the fixture: labels of the first video, the second, and the other folder.
        labels = [
            sorted(labels[valid].tolist())
            for labels, valid in zip(
                batch["labels"], batch["instance_valid"], strict=True
            )
        ]
        assert sorted(labels) == [[0, 1], [0, 2], [1]]
    again = next(train_batches(dataset, config, seed=0, start_step=2))
    for key, array in again.items():
        np.testing.assert_array_equal(array, batches[2][key])


def test_names_decide_what_is_trained_on(config):
    found = {}
    for names in ((("bee", "ant"),), (), (("dragon", ""),)):
        joint = {**to_dict(config)["joint"], "names": names}
        dataset = make_training_set(
            data_settings(**{**to_dict(config), "joint": joint})
        )
        found[names] = [one.name for one in dataset.categories]
        labels = dataset.truth(2).labels
        assert len(labels) == (1 if ("dragon", "") in names else 2)
    assert list(found.values()) == [
        ["ant", "cat", "dragon"],
        ["ant", "cat", "Bee", "dragon"],
        ["ant", "cat", "Bee"],
    ]


def test_each_set_is_evaluated_by_itself_with_the_categories_of_both(config):
    first = make_dataset(config, "train")
    fields = to_dict(config)
    fields["joint"] = {**fields["joint"], "evaluate": "second"}
    second = make_dataset(data_settings(**fields), "train")
    assert (len(first.videos), len(second.videos)) == (2, 1)
    assert first.categories == second.categories == make_training_set(config).categories
    assert second.truth(0).labels.tolist() == [2, 0]
    for part in (first, second):
        clip = part.read_clip(0, np.array([0, 3]))
        np.testing.assert_array_equal(clip.labels, part.truth(0).labels)


def test_what_does_not_fit_is_named(config):
    fields = to_dict(config)
    with pytest.raises(ValueError, match=r"data\.joint\.root: expected none with name"):
        data_settings(**{**fields, "name": "moving_shapes", "root": ""})
    with pytest.raises(ValueError, match=r"data\.stills\.share: expected 0 with joint"):
        data_settings(**{**fields, "stills": dict(share=0.5)})
    with pytest.raises(ValueError, match=r"data\.joint\.evaluate: expected 'first' or"):
        data_settings(**{**fields, "joint": dict(evaluate="third")})
    with pytest.raises(ValueError, match="loader: expected 'tf' for several sets"):
        dataset = make_training_set(config)
        numpy_pipeline.train_batches(dataset, config, seed=0, start_step=0)
