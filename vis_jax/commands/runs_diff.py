"""Prints the settings in which two runs differ, including defaults.

examples:
  python -m vis_jax.main runs diff runs/a runs/b
  python -m vis_jax.main runs diff runs/a runs/b --section optimizer
"""

from absl import flags

from vis_jax.commands.config_file import read_json, read_saved, saved_in
from vis_jax.paths import on_disk


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Adds the flags of this command."""
    del arguments
    flags.DEFINE_list("workdirs", None, "folders of two runs", flag_values=values)
    flags.DEFINE_string(
        "section", "", "only this section, such as model.backbone", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Prints a line per differing setting."""
    from vis_jax.training.changes import Change, differences

    names = values.workdirs or []
    if len(names) != 2:
        raise ValueError(
            f"--workdirs: expected two folders such as runs/a,runs/b, got {len(names)}"
        )
    first, second = (settings_of(name) for name in names)
    found = [
        one
        for one in differences(first, second)
        if not values.section or f"{one.name}.".startswith(f"{values.section}.")
    ]
    if not found:
        where = f" of {values.section}" if values.section else ""
        print(f"all settings{where} are equal")
        return
    rows = [Change("setting", *names), *found]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for row in rows:
        print(f"{row.name:<{widths[0]}}  {row.before:<{widths[1]}}  {row.after}")


def settings_of(workdir: str) -> dict:
    """Returns all settings of a run, in the current form of config.json.

    Raises:
      ValueError: there is no config.json, or it cannot be read.
    """
    from vis_jax.commands.run_settings import read_run
    from vis_jax.training.changes import as_saved

    path = saved_in(on_disk("--workdirs", workdir))
    saved = read_saved(path)
    try:
        return as_saved(read_run(saved))
    except ValueError:  # written by another version with other fields
        return read_json(path)
