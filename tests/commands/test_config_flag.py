import json

import pytest
from absl import flags

from tests.command_line import error_of
from vis_jax.commands.config_flag import define_config, read_config

CONFIG = """
from ml_collections import ConfigDict

def get_config(arg="small"):
    if arg not in ("small", "large"):
        raise ValueError(f"size: expected small or large, got {arg!r}")
    model = dict(size=arg, dim=8, sides=(3, 4))
    return ConfigDict(dict(model=model, rate=0.5, flip=True))
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
    words = ["--config.model.dim=16", "--config.rate", "2", "--noconfig.flip"]
    config = config_of("--config", f"{file}:large", *words, "--config.model.sides=(5,)")
    assert config.to_dict() == {
        "model": {"size": "large", "dim": 16, "sides": (5,)},
        "rate": 2.0,
        "flip": False,
    }


def test_a_run_gives_its_config_unless_another_is_named(file, tmp_path):
    saved = {"model": {"sides": [1, [2, 3]]}, "rate": 0.1}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    config = config_of(f"--workdir={tmp_path}", "--config.rate=0.2")
    assert config.to_dict() == {"model": {"sides": (1, (2, 3))}, "rate": 0.2}
    config = config_of("--workdir", tmp_path, "--config", file)
    assert config.rate == 0.5


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--config.modl.dim=3", "--config.modl.dim: the config has no such field"),
        ("--config.model.dmi=3", "one of ['dim', 'sides', 'size'] in place of 'dmi'"),
        ("--config.rate.now=3", "--config.rate.now: the config has no such field"),
        ("--noconfig.flop", "--config.flop: the config has no such field"),
        ("--config.model.dim=wide", "--config.model.dim=wide: invalid literal for int"),
        ("--config.model.dim=2.5", "--config.model.dim=2.5: invalid literal for int"),
        ("--config.rate=fast", "--config.rate=fast: could not convert string to float"),
        ("--config.flip=maybe", "config.flip"),
        ("--config.model=3", "--config.model=3: Failed to parse"),
    ],
)
def test_a_wrong_field_is_named(file, tmp_path, word, expected):
    assert expected in error_of("--config", file, word, "--workdir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


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
    expected = f"--config: expected a Python file, got {path}: no such file"
    assert error_of("--config", path) == expected
    assert f"got {tmp_path}: no such file" in error_of(
        "evaluate", "--workdir", tmp_path
    )
    missing = tmp_path / "none"
    assert f"got {missing}: no such folder" in error_of("--workdir", missing)


@pytest.mark.parametrize("text", ['{"rate": 0.', "[1]", "\udcff"])
def test_a_damaged_config_of_a_run_is_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text, errors="surrogateescape")
    assert str(path) in error_of("evaluate", "--workdir", tmp_path)
