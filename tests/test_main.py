import configparser
import importlib
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

import vis_jax
from tests.command_line import call, error_of
from tests.metrics.scenes import prediction, rows, track, truth_file
from vis_jax import main as program

ROOT = Path(__file__).parents[1]
# Packages that take seconds to import.
HEAVY = ("jax", "flax", "tensorflow", "orbax", "pycocotools", "av", "PIL")


def run_python(code, *words):
    subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", program.COMMANDS)
def test_the_help_of_a_command_has_two_examples_and_its_flags(name):
    outcome = call(*name.split(), "--help")
    assert outcome.code == 0
    text, flag_help = outcome.out.split("flags:\n")
    examples = text.split("examples:\n")[1].split("python -m vis_jax.main")[1:]
    assert len(examples) >= 2
    for example in examples:
        for word in example.split():
            flag = word.split("=")[0].split(".")[0]
            assert not flag.startswith("--") or f"{flag}:" in flag_help.replace(
                "--[no]", "--"
            )


def test_the_help_names_every_command():
    for words in ([], ["help"], ["--help"], ["-h"]):
        outcome = call(*words)
        assert outcome.code == 0
        assert all(f"\n  {name} " in outcome.out for name in program.COMMANDS)
    assert "make_shapes" in call("data", "--help").out


def test_the_package_runs_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vis_jax", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("vis_jax", run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out == f"vis_jax {vis_jax.__version__}\n"


def test_the_package_has_the_script_its_version_and_its_types(monkeypatch, capsys):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    name, _, place = scripts[1].partition(" = ")
    module, _, function = place.partition(":")
    monkeypatch.setattr(sys, "argv", [name, "help"])
    with pytest.raises(SystemExit) as ended:
        getattr(importlib.import_module(module), function)()
    assert (name, ended.value.code) == ("vis-jax", 0)
    assert "commands:" in capsys.readouterr().out
    assert setup["metadata"]["version"] == "attr: vis_jax.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", vis_jax.__version__)
    assert call("--version").out == f"vis_jax {vis_jax.__version__}\n"
    for package, patterns in setup["options.package_data"].items():
        folder = ROOT.joinpath(*package.split("."))
        assert all([*folder.glob(pattern)] for pattern in patterns.split(", "))


def test_help_imports_nothing_heavy():
    code = """
import sys
from vis_jax.main import COMMANDS, main
for name in COMMANDS:
    assert main([*name.split(), "--help"]) == 0
heavy = [name for name in sys.argv[1:] if name in sys.modules]
assert not heavy, heavy
"""
    run_python(code, *HEAVY)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "command 'trian': expected one of train, evaluate, compare"),
        (["data"], "command 'data': expected one of data make_shapes, data extract"),
        (["data", "mak"], "command 'data mak': expected one of data make_shapes"),
        (["score", "--trth=x"], "Unknown command line flag 'trth'"),
        (["data", "pack", "a", "b"], "unexpected words on the command line: a b"),
        (["score", "--errors=perhaps"], "errors"),
        (["score", "--score_threshold=low"], "score_threshold"),
        (["score"], "--truth: expected a JSON file, got none"),
        (["--workdir=there"], "--config: expected a file such as configs/ifr_shapes"),
        (["train", "--config=configs/ifr_shapes.py"], "--workdir: expected a folder"),
        (["evaluate", "--config=configs/ifr_shapes.py"], "--checkpoint: expected"),
        (["predict", "--workdir=there"], "--source: expected a path, got none"),
        (["data", "make_shapes"], "--output: expected a new folder, got none"),
        (["data", "check"], "--root: expected a folder, got none"),
        (["data", "cache_features"], "--output: expected a folder, got none"),
        (["data", "split", "--truth=a", "--output=b"], "--num_held_out: expected"),
        (["data", "pack", "--truth=a"], "--results: expected a file, got none"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, expected):
    assert expected in error_of(*words)


def test_home_is_found_in_the_paths_of_every_command(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    message = error_of("score", "--truth=~/none.json", "--results", "~/a.json")
    assert message.startswith(f"{tmp_path}/none.json: ")


def test_several_paths_follow_the_flag_of_a_source(tmp_path):
    empty = tmp_path / "empty.txt"
    empty.touch()
    words = ("--checkpoint=shapes", "--output", tmp_path / "out")
    message = error_of("predict", *words, "--source", "a.mp4", empty)
    assert message.startswith(f"{empty}: ")


def replace_score(monkeypatch, error):
    def run(values):
        raise error

    command = types.SimpleNamespace(define=lambda values, arguments: None, run=run)
    monkeypatch.setitem(sys.modules, "vis_jax.commands.score", command)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("field:\n  expected this"), "field: expected this"),
        (FileNotFoundError(2, "No such file", "a.json"), "a.json: No such file"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (OSError(), "OSError"),
    ],
)
def test_what_a_user_can_mend_is_one_line(monkeypatch, error, expected):
    replace_score(monkeypatch, error)
    assert error_of("score") == expected
    monkeypatch.setenv("VIS_JAX_TRACEBACK", "1")
    with pytest.raises(type(error)):
        call("score")


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), AssertionError()])
def test_errors_in_the_program_keep_their_traceback(monkeypatch, error):
    replace_score(monkeypatch, error)
    with pytest.raises(type(error)):
        call("score")


def test_a_command_that_needs_more_than_scoring_says_what_to_install(monkeypatch):
    error = ModuleNotFoundError("No module named 'jax.numpy'", name="jax.numpy")
    replace_score(monkeypatch, error)
    expected = "score needs jax.numpy, which is not installed: pip install vis_jax"
    assert error_of("score") == expected
    replace_score(monkeypatch, ModuleNotFoundError(name="a_module_of_a_config"))
    with pytest.raises(ModuleNotFoundError):
        call("score")


def test_the_requirements_for_scoring_are_those_of_the_library_or_left_out():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    whole = settings["options"]["install_requires"].split("\n")
    whole = {line.partition(";")[0].strip() for line in whole if line}
    lines = (ROOT / "requirements-score.txt").read_text().splitlines()
    light = {line for line in lines if not line.startswith("#")}
    assert light < whole
    names = {re.split("[<>=]", line)[0].replace("-", "_") for line in whole - light}
    renamed = {"orbax_checkpoint": "orbax", "pyyaml": "yaml"}
    names = {renamed.get(name, name).removesuffix("_cpu") for name in names}
    assert names == set(program.WHOLE)


def test_scoring_and_packing_run_with_its_requirements_alone(tmp_path):
    masks = rows(8, 8)
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    truth.write_text(json.dumps(truth_file([track(1, masks)], lengths=(2,))))
    results.write_text(json.dumps([prediction(0.9, masks)] * 2))
    score = ["score", "--truth", str(truth), "--results", str(results)]
    more = ["--tracking", "--errors", "--class_agnostic", "--per_video"]
    more += ["--report", str(tmp_path / "report.html")]
    pack = ["data", "pack", *score[1:], "--output", str(tmp_path / "a.zip")]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({program.WHOLE!r}))
from vis_jax.main import main
words = {[[*score, *more], [*score, str(results)], pack, ["predict"]]!r}
assert [main(each) for each in words] == [0, 0, 0, 2]
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("error: predict needs ml_collections, which is not")


def test_an_interrupted_command_says_so(monkeypatch):
    replace_score(monkeypatch, KeyboardInterrupt())
    assert call("score") == (130, "", "error: interrupted\n")


@pytest.mark.parametrize(
    ("ending", "code"),
    [("sys.exit(143)", 143), ("sys.exit(130)", 130), ("return 0", -signal.SIGSEGV)],
)
def test_a_crash_after_a_signal_does_not_hide_its_code(ending, code):
    """The crash is that of an interrupted compilation: after the exit handlers."""
    text = f"""
import atexit, os, signal, sys
import vis_jax.main as program
class Crash:
    def __del__(self, crash=os.kill, words=(os.getpid(), signal.SIGSEGV)):
        crash(*words)
kept = Crash()
def main(words):
    atexit.register(os.write, 1, b"closed")
    {ending}
program.main = main
program.console()
"""
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout) == (code, b"closed")


def test_tensorflow_is_quiet_unless_the_user_wants_it(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    call("--help")
    names = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")
    assert [os.environ[name] for name in names] == ["0", "0"]
