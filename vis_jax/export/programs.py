"""Reads, checks and runs exported programs with JAX, without Flax or a config.

The manifest is compared with the programs, and nothing runs unless all of it agrees. A
program consists of StableHLO operations only, so it can reach neither files nor the
host's Python; it can still use up memory and time.
"""

import hashlib
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from vis_jax.export.manifest import (
    START,
    STEP,
    ArrayForm,
    ClipShape,
    Manifest,
    ProgramForm,
    file_name,
    forms_of,
)
from vis_jax.structures import Clip, Predictions

_MOST_BYTES = 256 << 20  # maximum size of a program, without its variables
_BYTECODE = b"ML\xefR"  # magic number of MLIR bytecode; JAX would also read MLIR text
# Constrains the number of frames of a program; JAX replaces it.
_HARMLESS_CALLS = {"shape_assertion"}
VIDEOS = "videos"  # symbol for the number of videos of a batched step
_OPTIONAL = {"mask_boxes", "lost"}  # fields of predictions that may be missing

Forms = Mapping[str, ArrayForm]


class ClipPrograms(NamedTuple):
    """Checked programs for clips of one shape."""

    start: export.Exported
    step: export.Exported


class StoredSystem:
    """`start` and `step` of an exported system.

    Args:
      programs: by clip shape.
      variables: arrays by name, with the dtypes that the programs take.
      batched: steps take several videos at once; they are given one.
    """

    def __init__(
        self,
        programs: Mapping[ClipShape, ClipPrograms],
        variables: Mapping[str, np.ndarray],
        batched: bool = False,
    ) -> None:
        self._variables = jax.device_put(dict(variables))
        self._start = {
            shape: jax.jit(pair.start.call) for shape, pair in programs.items()
        }
        self._step = {
            shape: jax.jit(
                _single(pair.step.call) if batched else pair.step.call,
                donate_argnums=1,
            )
            for shape, pair in programs.items()
        }

    def start(self, clip: Clip, /) -> dict[str, jax.Array]:
        """Returns the state before the first clip, by name.

        Raises:
          ValueError: there is no program for clips of this shape.
        """
        return self._start[self._shape(clip)]()

    def step(
        self, state: dict[str, jax.Array], clip: Clip, /
    ) -> tuple[dict[str, jax.Array], Predictions]:
        """Returns the state for the next clip, and the predictions so far.

        Raises:
          ValueError: there is no program for clips of this shape.
        """
        call = self._step[self._shape(clip)]
        state, found = call(self._variables, state, clip._asdict())
        return state, Predictions(**found)

    def _shape(self, clip: Clip) -> ClipShape:
        frames, height, width = clip.images.shape[:3]
        for shape in (
            ClipShape(frames, height, width),
            ClipShape(None, height, width),
        ):
            if shape in self._step:
                return shape
        raise ValueError(
            f"expected clips of one of {[*map(str, self._step)]} (frames x height x"
            f" width), which were exported, got {ClipShape(frames, height, width)}"
        )


def _single(call: Callable) -> Callable:
    """Wraps a batched step to take one video."""

    def step(variables: Any, *arrays: Any) -> Any:
        several = jax.tree.map(lambda x: jnp.asarray(x)[None], arrays)
        return jax.tree.map(lambda x: x[0], call(variables, *several))

    return step


def read_programs(
    folder: Path, manifest: Manifest, variables: Mapping[str, Any]
) -> dict[ClipShape, ClipPrograms]:
    """Reads and checks all programs of a folder.

    Args:
      folder: as written by `stablehlo.write_programs`.
      manifest: manifest of the folder.
      variables: arrays or shapes by name.

    Raises:
      ValueError: a program is missing or damaged, disagrees with the manifest, does not
        take these variables, or was not exported for this type of device.
    """
    found = {}
    for shape, form in manifest.shapes().items():
        paths = [folder / file_name(kind, shape) for kind in (START, STEP)]
        start, step = map(read_program, paths, (form.start, form.step))
        _check_start(paths[0], start, form)
        taken, given = _forms_of_step(paths[1], step, manifest.batched)
        _check_step(paths[1], taken, form, shape, variables)
        _check(paths[1], "next state", given[0], form.state)
        _check(paths[1], "predictions", given[1], form.predictions)
        _check_predictions(paths[1], form.predictions, len(manifest.categories))
        found[shape] = ClipPrograms(start, step)
    return found


def read_program(path: Path, digest: str) -> export.Exported:
    """Reads a program and checks it.

    Args:
      path: path of its file.
      digest: SHA-256 of the file's bytes, in hexadecimal digits.

    Raises:
      ValueError: the program is missing or damaged, has side effects, calls anything
        but StableHLO operations, or was not exported for one device of this type.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected a program, got no such file")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(
            f"{path}: expected at most {_MOST_BYTES} bytes, got {path.stat().st_size}"
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(f"{path}: damaged: its SHA-256 is not that of program.json")
    try:
        found = export.deserialize(bytearray(content))
    except Exception as error:  # a malformed file can raise anything
        raise ValueError(
            f"{path}: not a program that this version of JAX ({jax.__version__}) can"
            f" read: {error!s:.200}"
        ) from error
    if found.disabled_safety_checks or found.ordered_effects or found.unordered_effects:
        raise ValueError(f"{path}: expected a pure program, got one with side effects")
    if found.nr_devices != 1:
        raise ValueError(
            f"{path}: expected a program for one device, got one for {found.nr_devices}"
        )
    if not found.mlir_module_serialized.startswith(_BYTECODE):
        raise ValueError(f"{path}: expected bytecode of MLIR, got something else")
    calls = _custom_calls(found)
    if calls:
        raise ValueError(
            f"{path}: expected operations of StableHLO alone, got custom calls of"
            f" {', '.join(sorted(calls))}"
        )
    device = "cuda" if jax.default_backend() == "gpu" else jax.default_backend()
    if device not in found.platforms:
        raise ValueError(
            f"{path}: expected a program for {device}, got one for"
            f" {', '.join(found.platforms)}"
        )
    return found


def _custom_calls(program: export.Exported) -> set[str]:
    """Returns the names of a program's calls into the host process.

    Such a call may read any memory: Python callbacks take addresses as numbers.
    """
    # MLIR bytecode contains the names of its operations as plain text.
    if b"custom_call" not in program.mlir_module_serialized:
        return set()
    text = program.mlir_module()
    found = re.findall(r"stablehlo\.custom_call @([\w.$]+)\(", text)
    # The pattern misses calls of other dialects or in another notation.
    unnamed = text.count("custom_call") - len(found)
    return {*found} - _HARMLESS_CALLS | ({"unknown names"} if unnamed else set())


def _check_start(path: Path, start: export.Exported, form: ProgramForm) -> None:
    if start.in_avals:
        raise ValueError(f"{path}: expected no arguments, got {len(start.in_avals)}")
    _check(path, "state", _outputs(path, start, 1)[0], form.state)


def _forms_of_step(
    path: Path, step: export.Exported, batched: bool
) -> tuple[list[Forms], list[Forms]]:
    """Returns the inputs and outputs of a step for one video."""
    arguments, keywords = jax.tree.unflatten(step.in_tree, step.in_avals)
    if len(arguments) != 3 or keywords:
        raise ValueError(f"{path}: expected 3 arguments, got {len(arguments)}")
    taken = [_named(path, argument) for argument in arguments]
    given = _outputs(path, step, 2)
    if batched:
        try:
            taken = [taken[0], *map(of_one_video, taken[1:])]
            given = [*map(of_one_video, given)]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return taken, given


def of_one_video(forms: Forms) -> dict[str, ArrayForm]:
    """Removes the leading axis of a batched step's arrays.

    Args:
      forms: by name.

    Raises:
      ValueError: the leading axis of an array is not the number of videos.
    """
    for name, form in forms.items():
        if form.shape[:1] != (VIDEOS,):
            raise ValueError(
                f"{name}: expected any number of videos first, got {[*form.shape]}"
            )
    return {
        name: ArrayForm(dtype=form.dtype, shape=form.shape[1:])
        for name, form in forms.items()
    }


def _check_step(
    path: Path,
    taken: list[Forms],
    form: ProgramForm,
    shape: ClipShape,
    variables: Mapping[str, Any],
) -> None:
    frames: int | str | None = shape.frames
    if frames is None:  # an expression such as 8*chunks, the same in both arrays
        images = taken[2].get("images")
        frames = str(images.shape[0]) if images is not None and images.shape else ""
    canvas = (shape.height, shape.width, 3)
    clip = {
        "images": ArrayForm(dtype="uint8", shape=(frames, *canvas)),
        "frame_valid": ArrayForm(dtype="bool", shape=(frames,)),
        "size": ArrayForm(dtype="int32", shape=(2,)),
        "start": ArrayForm(dtype="int32", shape=()),
        "last": ArrayForm(dtype="bool", shape=()),
    }
    expected = (forms_of(variables), form.state, clip)
    for name, found, want in zip(
        ("variables", "state", "clip"), taken, expected, strict=True
    ):
        _check(path, name, found, want)


def _check_predictions(path: Path, found: Forms, classes: int) -> None:
    """Raises ValueError unless these are fields of `Predictions` with matching axes."""
    fields = set(Predictions._fields)
    if not fields - _OPTIONAL <= set(found) <= fields:
        raise ValueError(
            f"{path}: predictions: expected {[*Predictions._fields]}, got"
            f" {sorted(found)}"
        )
    axes = {
        "class_probs": ("float32", "SK"),
        "track_ids": ("int32", "S"),
        "valid": ("bool", "S"),
        "slots": ("int32", "FD"),
        "mask_logits": ("float32", "FDhw"),
        "mask_boxes": ("float32", "FD4"),
        "lost": ("int32", ""),
    }
    sizes: dict[str, int | str] = {"K": classes, "4": 4}
    for name, form in found.items():
        dtype, letters = axes[name]
        fits = form.dtype == dtype and len(form.shape) == len(letters)
        pairs = itertools.zip_longest(letters, form.shape)
        if not fits or any(sizes.setdefault(a or "", n) != n for a, n in pairs):
            known = [sizes.get(letter, letter) for letter in letters]
            raise ValueError(
                f"{path}: predictions: {name}: expected {dtype} {known}, got"
                f" {form.dtype} {[*form.shape]}"
            )


def _outputs(path: Path, program: export.Exported, count: int) -> list[Forms]:
    """Returns the outputs of a program: one dict of arrays, or several."""
    found = jax.tree.unflatten(program.out_tree, program.out_avals)
    parts = found if isinstance(found, tuple) else (found,)
    if len(parts) != count:
        raise ValueError(f"{path}: expected {count} results, got {len(parts)}")
    return [_named(path, part) for part in parts]


def _named(path: Path, arrays: Any) -> Forms:
    """Returns the dtype and shape of each array of a dict."""
    if not isinstance(arrays, dict) or not jax.tree_util.all_leaves(arrays.values()):
        raise ValueError(f"{path}: expected arrays by name, got {type(arrays)}")
    return forms_of(arrays)


def _check(path: Path, what: str, found: Forms, expected: Forms) -> None:
    """Raises ValueError for the first array that differs, by name."""
    for name in sorted(found.keys() | expected.keys()):
        one, other = found.get(name), expected.get(name)
        if one != other:
            raise ValueError(
                f"{path}: {what}: {name}: expected {_text(other)}, got {_text(one)}"
            )


def _text(form: ArrayForm | None) -> str:
    return "no such array" if form is None else f"{form.dtype} {[*form.shape]}"
