import json

import pytest
from absl import flags

from tests.command_line import error_of
from vis_jax.backbones import swin
from vis_jax.commands.config_flag import define_config, read_config
from vis_jax.commands.run_settings import of_evaluation, read_run
from vis_jax.settings import to_dict

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg="small"):
    if arg not in ("small", "large"):
        raise ValueError(f"size: expected small or large, got {arg!r}")
    model = dict(num_classes=8 if arg == "large" else 3)
    data = dict(name="moving_shapes", short_side=(64, 96))
    return ConfigDict(dict(system="ifr", num_steps=5, data=data, model=model))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def config_of(*words):
    arguments = [str(word) for word in words]
    values = flags.FlagValues()
    define_config(values, arguments)
    flags.DEFINE_string("workdir", None, "folder", flag_values=values)
    values(["vis_jax", *arguments])
    return read_config(values)


def test_fields_are_set_with_the_type_they_have(file):
    """Those that the file states, and all others at their defaults."""
    words = ["--config.data.frames=3", "--config.optimizer.learning_rate", "2"]
    words += ["--config.data.short_side=(5,)", "--noconfig.model.mask_decoder.remat"]
    config = config_of("--config", f"{file}:large", *words)
    assert config.data.frames == 3
    assert config.optimizer.learning_rate == 2.0
    assert config.data.short_side == (5,)
    assert config.model.num_classes == 8
    assert config.model.mask_decoder.remat is False
    assert config == read_run(
        dict(
            system="ifr",
            num_steps=5,
            data=dict(name="moving_shapes", short_side=(5,), frames=3),
            model=dict(num_classes=8),
            optimizer=dict(learning_rate=2.0),
        )
    )


@pytest.mark.parametrize("form", ["--{}={}", "--{} {}", "-{}={}"])
def test_the_kind_of_a_part_brings_its_own_fields(file, form):
    names = {"model.backbone.name": "swin", "optimizer.kind": "sgd"}
    words = " ".join(form.format(f"config.{k}", v) for k, v in names.items()).split()
    words += ["--config.model.backbone.window=9", "--config.optimizer.momentum=0.5"]
    config = config_of("--config", file, *words)
    assert (config.model.backbone.name, config.model.backbone.window) == ("swin", 9)
    assert config.optimizer.momentum == 0.5


def test_another_backbone_than_that_of_the_config_takes_its_variant():
    config = config_of(
        "--config", "configs/ifr_r50.py", "--config.model.backbone.name=swin",
        "--config.model.backbone.variant=tiny",
    )  # fmt: skip
    assert config.model.backbone == swin.Settings(variant="tiny")


@pytest.mark.parametrize(
    ("words", "path", "expected"),
    [
        (["--config.optimizer.clip_norm=2"], "optimizer.clip_norm", 2.0),
        (["--config.optimizer.clip_norm", "None"], "optimizer.clip_norm", None),
        (["--config.data.crop=(8, 9)"], "data.crop", (8, 9)),
        (["--config.data.crop=None"], "data.crop", None),
        (["--config.data.shapes.length=7"], "data.shapes.length", 7),
        (["--config.data.shapes.length=(7,9)"], "data.shapes.length", (7, 9)),
        (["--config.test.tta=(360,480)"], "test.tta", (360, 480)),
        (
            ["--config.optimizer.rates=(('a.*',.5),('.*',1.))"],
            "optimizer.rates",
            (("a.*", 0.5), (".*", 1.0)),
        ),
        (  # the last one counts
            ["--config.data.crop=(8,9)", "--config.data.crop=None"], "data.crop", None,
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", ["dict(clip_norm=0.5)", "dict(clip_norm=None)"])
def test_a_field_becomes_none_a_number_or_a_tuple(file, before, words, path, expected):
    """Whatever it is in the recipe, as far as its type allows."""
    text = CONFIG.replace("return ConfigDict", "config = ConfigDict")
    crop = "(5, 6)" if "None" in before else "None"
    lines = f"config.optimizer = {before}\n    config.data.crop = {crop}"
    file.write_text(f"{text}    {lines}\n    return config\n")
    found = config_of("--config", file, *words)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == expected
    assert type(found) is type(expected)


def test_fields_of_further_evaluations_can_be_set(file):
    text = CONFIG.replace("return ConfigDict", "config = ConfigDict")
    evals = "dict(hard=dict(every=2, test=dict(videos=3)))"
    file.write_text(f"{text}    config.evals = {evals}\n    return config\n")
    words = ("--config.evals.hard.every=5", "--config.evals.hard.test.videos=7")
    config = config_of("--config", file, *words)
    assert config.evals["hard"].every == 5
    assert of_evaluation(config, "hard").test.videos == 7


def test_a_run_gives_its_config_unless_another_is_named(file, tmp_path):
    saved = to_dict(config_of("--config", file, "--config.num_steps=7"))
    (tmp_path / "config.json").write_text(json.dumps(saved))
    config = config_of(f"--workdir={tmp_path}", "--config.data.flip=0.2")
    assert (config.num_steps, config.data.flip) == (7, 0.2)
    assert config.data.short_side == (64, 96)
    config = config_of("--workdir", tmp_path, "--config", file)
    assert config.num_steps == 5


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--config.modl.dim=3", "--config.modl.dim: the config has no such field"),
        ("--config.data.fps=3", "'flip', 'flip_per', 'frame_range', 'frames', "),
        ("--config.data.fps=3", "in place of 'fps'"),
        ("--config.seed.now=3", "--config.seed.now: the config has no such field"),
        ("--noconfig.flop", "--config.flop: the config has no such field"),
        ("--config.seed=wide", "--config.seed=wide: invalid literal for int"),
        ("--config.seed=2.5", "--config.seed=2.5: invalid literal for int"),
        ("--config.data.flip=a", "--config.data.flip=a: could not convert string to"),
        ("--config.seed=None", "--config.seed=None: invalid literal for int"),
        ("--config.data.crop=x", "data.crop: expected (int, int) or None, at least 1"),
        ("--config.optimizer.clip_norm=0", "clip_norm: expected float or None, above"),
        ("--config.data.shapes.length=None", "data.shapes.length: expected int or (i"),
        ("--config.data.flip=2", "data.flip: expected float, 0 .. 1, got 2.0"),
        ("--config.model.backbone.remat=maybe", "config.model.backbone.remat"),
        ("--config.model=3", "--config.model=3: Failed to parse"),
        ("--config.optimizer.kind=sdg", "optimizer.kind: expected one of ['adam', 'ad"),
        ("--config.model.mask_decoder.dim=30", "model.mask_decoder.dim: expected a mu"),
        ("--config.model.mask_decoder.heads=3", "multiple of 4 and of heads, 3, got 2"),
        (
            "--config.model.pixel_decoder.dim=64",
            "model.mask_decoder.dim: expected model.pixel_decoder.dim, 64, got 256",
        ),
    ],
)
def test_a_wrong_field_is_named(file, tmp_path, word, expected):
    assert expected in error_of("--config", file, word, "--workdir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("config.data.fps = 3", "data.fps: no such field"),
        ("config.data.frames = 0", "data.frames: expected int, at least 1, got 0"),
        ("config.system = 'irf'", "system: expected one of ['cascade', "),
        ("del config.data", "data: expected a value, got none"),
        (
            "config.evals = dict(a=dict(test=dict(x=1)))",
            "evals.a.test.x: no such field",
        ),
        (
            "config.evals = dict(a=dict(data=dict(flip=0.0)))",
            "evals.a.data.flip: expected one of ['held_out', 'held_out_share', 'name',",
        ),
        (
            "config.evals = {'': {}}",
            "evals: expected names that begin with a letter, not with step_",
        ),
    ],
)
def test_a_wrong_field_of_a_file_is_named_with_the_file(file, line, expected):
    text = CONFIG.replace("return ConfigDict", "config = ConfigDict")
    file.write_text(f"{text}    {line}\n    return config\n")
    message = error_of("--config", file, "--dry_run")
    assert message.startswith(f"--config {file}: {expected}")


def test_a_wrong_argument_of_the_config_is_explained(file):
    expected = f"--config {file}: size: expected small or large, got 'huge'"
    assert error_of("--config", f"{file}:huge") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def get_config(:\n", ", line 1: invalid syntax"),
        ("import nothing_like_it\n", "line 1: ModuleNotFoundError: No module named"),
        ("\ndef get_config():\n    return one\n", ", line 3: NameError: name 'one'"),
        ("def get_config():\n    return {'a': 1}\n", "expected a ConfigDict, got dict"),
        ("config = 1\n", ": expected a function get_config()"),
        ("def get_config(a):\n    return a\n", ": TypeError: get_config() missing 1"),
    ],
)
def test_a_broken_config_file_is_named_with_the_line(tmp_path, text, expected):
    path = tmp_path / "broken.py"
    path.write_text(text)
    message = error_of("--config", path)
    assert message.startswith(f"--config {path}")
    assert expected in message


def test_a_config_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "none.py"
    expected = (
        f"--config: expected a Python file, got {path}: no such file, and none of"
    )
    assert error_of("--config", path).startswith(expected)
    assert f"got {tmp_path}: no such file" in error_of(
        "evaluate", "--workdir", tmp_path
    )
    missing = tmp_path / "none"
    assert f"got {missing}: no such folder" in error_of("--workdir", missing)


@pytest.mark.parametrize("text", ['{"seed": 0.', "[1]", '{"a": 1}', "\udcff"])
def test_a_damaged_config_of_a_run_is_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text, errors="surrogateescape")
    assert str(path) in error_of("evaluate", "--workdir", tmp_path)
