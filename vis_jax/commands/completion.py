"""Prints a shell's completion script for commands, flags and recipes.

It completes the script `vis-jax`, which the installation puts on the path.

examples:
  eval "$(python -m vis_jax.main completion --shell bash)"  # in ~/.bashrc
  eval "$(python -m vis_jax.main completion --shell zsh)"   # in ~/.zshrc
"""

import importlib
import shlex
from pathlib import Path

from absl import flags

from vis_jax.commands.config_names import recipe_files

SHELLS = ("bash", "zsh")
DEFAULT = "train"  # the command of a line that begins with a flag

_SCRIPT = """# Completion of vis-jax: commands, flags, recipes behind --config, files.
_vis_jax() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
  local key="${{COMP_WORDS[1]-}} ${{COMP_WORDS[2]-}}" IFS=$' \\n'
  if [[ $COMP_CWORD == 1 ]]; then key=first; fi
  if [[ $word == = ]]; then word=; fi
  if [[ $before == = ]]; then before=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  if [[ $before == --config ]]; then
    words={recipes}
  elif [[ $before == --shell ]]; then
    words={shells}
  elif [[ $before != --* || $word == -* ]]; then
    case $key in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [[ ${{#COMPREPLY[@]}} == 0 && $word != -* ]]; then
    IFS=$'\\n' # names of files may have spaces
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _vis_jax vis-jax
"""


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    flags.DEFINE_enum(
        "shell", "bash", SHELLS, "shell to complete for", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Prints the script."""
    if values.shell == "zsh":
        print("autoload -U +X compinit bashcompinit && compinit && bashcompinit")
    print(script(), end="")


def script() -> str:
    """Returns the completion script."""
    return _SCRIPT.format(
        recipes=shlex.quote(" ".join(recipe_files())),
        shells=shlex.quote(" ".join(SHELLS)),
        cases="\n".join(
            f"      {pattern}) words={shlex.quote(' '.join(words))} ;;"
            for pattern, words in _cases(command_names()).items()
        ),
    )


def command_names() -> list[str]:
    """Returns the commands: the sibling modules that have `define` and `run`."""
    heads = ("\ndef define(", "\ndef run(")
    return [
        path.stem.replace("_", " ", 1)  # data_make_shapes is `data make_shapes`
        for path in sorted(Path(__file__).parent.glob("*.py"))
        if all(head in path.read_text() for head in heads)
    ]


def _cases(names: list[str]) -> dict[str, list[str]]:
    """Returns completions by command pattern; the first match applies."""
    pairs = [name for name in names if " " in name]
    members: dict[str, list[str]] = {}
    for name in pairs:
        group, word = name.split()
        members.setdefault(f"'{group} '*", []).append(word)
    firsts = list(dict.fromkeys(name.split()[0] for name in names))
    return {
        "first": [*firsts, "--help", "--version", *flags_of(DEFAULT)],
        **{f"'{name}'": flags_of(name) for name in pairs},
        **members,
        **{f"'{name} '*": flags_of(name) for name in names if " " not in name},
        "*": flags_of(DEFAULT),
    }


def flags_of(name: str) -> list[str]:
    """Returns the flags of a command, as typed."""
    module = importlib.import_module("vis_jax.commands." + name.replace(" ", "_"))
    values = flags.FlagValues()
    module.define(values, [])
    return [f"--{flag}" for flag in sorted(set(values) - {"flagfile", "undefok"})]
