"""The command that prints all fields of a config."""

import dataclasses

import pytest

from tests.command_line import call, error_of
from tests.recipes import NAMES, recipe
from tests.test_settings import Disc, Square
from vis_jax.commands.config import comments_of, format_section, sections
from vis_jax.settings import Count, section

RECIPES = (
    "ifr_r50", "ifr_swint", "mask2former_vis_r50", "mask_track_rcnn_r50", "osmn_r50",
    "yolact_r50", "condinst_r50", "videomt", "eomt",
)  # fmt: skip


@section
class Ball(Disc):
    """A round part in space.

    More of it.
    """

    # Two lines above a field
    # are one text.
    weight: Count = 2
    other: Count = 3  # behind it
    bare: int = 4


def test_the_comments_of_fields_are_those_of_the_source():
    assert comments_of(Ball) == {
        "kind": "", "radius": "", "weight": "Two lines above a field are one text.",
        "other": "behind it", "bare": "",
    }  # fmt: skip


def test_what_the_config_sets_has_a_star_and_its_default():
    assert format_section("a.b", Ball(radius=3, other=5)).splitlines() == [
        "a.b: A round part in space.",
        "  kind = 'disc'  ('disc')",
        "  radius = 3  (int, at least 1)",
        "  weight = 2  (int, at least 1)",
        "      Two lines above a field are one text.",
        "* other = 5  (int, at least 1; default 3)",
        "      behind it",
        "  bare = 4  (int)",
    ]
    assert "(float, ..), 0 .. 1" in format_section("", Square())


@section
class Bag:
    """`bag`: what holds a ball."""

    ball: Ball = Ball(radius=9)


def test_the_default_of_a_section_is_that_of_the_class_around_it():
    (top, _, none), (path, ball, default) = sections(Bag(ball=Ball(radius=9, other=5)))
    assert (top, none, path, default) == ("", None, "ball", Ball(radius=9))
    lines = format_section(path, ball, default).splitlines()
    assert "  radius = 9  (int, at least 1)" in lines
    assert "* other = 5  (int, at least 1; default 3)" in lines
    *_, (_, _, default) = sections(Union(part=Square()))
    assert default is None  # a disc has no defaults for a square


@section
class Union:
    """Holds either kind."""

    part: Disc | Square = Disc()


def test_a_title_names_its_section_once():
    assert format_section("bag", Bag()) == "bag: what holds a ball."
    assert format_section("bags.one", Bag()) == "bags.one: `bag`: what holds a ball."


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_of_a_recipe_is_explained(name):
    for path, settings, _ in sections(recipe(name, None)):
        texts = comments_of(type(settings))
        silent = [
            field.name
            for field in dataclasses.fields(settings)
            if not texts[field.name]
            and not dataclasses.is_dataclass(getattr(settings, field.name))
        ]
        assert not silent, path


def test_prints_a_config_with_what_the_command_line_sets():
    outcome = call(
        "config", "--config", "configs/ifr_r50.py:debug", "--section", "model",
        "--config.model.backbone.style=caffe",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "* style = 'caffe'  ('torch' or 'caffe'; default 'torch')" in outcome.out
    assert "\nmodel.mask_decoder of IFR: " in outcome.out
    assert "\noptimizer: " not in outcome.out
    wrong = error_of("config", "--config=configs/ifr_r50.py", "--section=modl")
    assert wrong == "--section: expected a section of the config, got 'modl'"


def test_recipes_have_names_that_work_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sections_of = {}
    for name in ("ifr_r50", "configs/ifr_r50.py", "ifr_shapes:debug"):
        outcome = call("config", "--config", name, "--section", "data.shapes")
        assert outcome.code == 0, outcome
        sections_of[name] = outcome.out
    assert sections_of["ifr_r50"] == sections_of["configs/ifr_r50.py"]
    assert sections_of["ifr_shapes:debug"] != sections_of["ifr_r50"]
    (tmp_path / "ifr_r50").write_text("def get_config(): return 3")
    assert "--config ifr_r50: expected a ConfigDict" in error_of("--config", "ifr_r50")
    message = error_of("--config", "ifr_r5")
    assert message.endswith("that `configs list` names; did you mean ifr_r50?")
    message = error_of("--config", "configs/nothing.py")
    assert message.endswith("that `configs list` names")
    message = error_of("--config", "ifr_shapes:size=3")
    assert message.startswith("--config ifr_shapes: config argument 'size': expected")


def test_every_recipe_is_listed_with_what_it_is():
    lines = call("configs", "list").out.splitlines()
    assert {line.split()[0] for line in lines} == set(NAMES)
    shown = dict(line.split(maxsplit=1) for line in lines)
    assert shown["ifr_r50"] == "IFR on Mask2Former-VIS, ResNet-50"
    few = call("configs", "list", "--filter", "osmn").out.splitlines()
    assert [line.split()[0] for line in few] == [
        n for n in sorted(NAMES) if "osmn" in n
    ]
    assert "--filter: expected a part" in error_of("configs", "list", "--filter", "x9")
