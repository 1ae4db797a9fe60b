"""Completion as bash asks for it."""

import shutil
import subprocess

import pytest

from tests.command_line import call
from vis_jax.commands.completion import command_names
from vis_jax.main import COMMANDS

# COMP_WORDS and COMP_CWORD are what bash gives; "=" is a word of its own.
LINES = {
    ("ev",): ["evaluate"],
    ("da",): ["data"],
    ("data", "pre"): ["prepare"],
    ("data", "check", "--ro"): ["--root"],
    ("config", "--sec"): ["--section"],
    ("configs", ""): ["list"],
    ("predict", "--config", "ifr_sh"): ["ifr_shapes"],
    ("--config", "=", "osmn_r"): ["osmn_r50"],
    ("--config", "x", "--dry"): ["--dry_run"],
    ("predict", "--source", "a vid"): ["a video.mp4"],
}


def test_bash_completes_commands_flags_recipes_and_files(tmp_path):
    (tmp_path / "a video.mp4").touch()
    (tmp_path / "script").write_text(call("completion").out)
    code = "source ./script; IFS=$'\\n'\n"
    for words in LINES:
        quoted = " ".join(f"'{word}'" for word in ("vis-jax", *words))
        code += f"COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _vis_jax\n"
        code += 'echo "${COMPREPLY[*]}"; echo --\n'
    done = subprocess.run(
        ["bash", "-uc", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = [text.split("\n") for text in done.stdout.split("\n--\n")[:-1]]
    assert dict(zip(LINES, found, strict=True)) == LINES


def test_every_command_is_completed():
    assert sorted(command_names()) == sorted(COMMANDS)


def test_zsh_reads_the_script():
    text = call("completion", "--shell", "zsh").out
    assert text.startswith("autoload -U +X compinit bashcompinit")
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    done = subprocess.run(["zsh", "-fc", text], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
