"""Exports a system as StableHLO programs, which JAX runs without the system's code.

Source: `jax.export`. A system becomes two programs for each clip shape: `start` creates
the state before the first clip; `step` takes variables, state and clip and returns the
next state and the predictions. All arrays are named, and the state is explicit.
Variables are arguments, stored once beside the programs of all shapes, so that the
compiler need not fold tens of millions of constants.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import export

from vis_jax.converters.narrow import widened
from vis_jax.export.manifest import (
    ClipShape,
    Manifest,
    ProgramForm,
    RenderForm,
    SizingForm,
    WindowForm,
    file_name,
    forms_of,
)
from vis_jax.export.programs import VIDEOS, ClipPrograms, of_one_video
from vis_jax.formats.disk import naming
from vis_jax.params import flatten, unflatten
from vis_jax.structures import Clip, Predictions
from vis_jax.systems.system import System, TestSettings

PLATFORMS = ("cpu", "cuda", "tpu")  # one file serves all of them
_SYMBOL = "chunks"


class NamedStep(NamedTuple):
    """`System.step` with named arrays in place of trees.

    Attributes:
      call: (variables, state, clip) -> (state, predictions), dicts of arrays by name.
      variables, state, clip: shapes of its arguments.
    """

    call: Any
    variables: dict[str, jax.ShapeDtypeStruct]
    state: dict[str, jax.ShapeDtypeStruct]
    clip: dict[str, jax.ShapeDtypeStruct]


def shapes_like(clip: ClipShape, frames: Any = None) -> Clip:
    """Returns a clip of shapes without values.

    Args:
      clip: shape of the clip.
      frames: symbol for an unknown number of frames.
    """
    count = clip.frames if frames is None else frames
    fields: list[Any] = [
        jax.ShapeDtypeStruct((count, clip.height, clip.width, 3), jnp.uint8),
        jax.ShapeDtypeStruct((count,), jnp.bool_),
        jax.ShapeDtypeStruct((2,), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.int32),
        jax.ShapeDtypeStruct((), jnp.bool_),
    ]
    return Clip(*fields)


def named_step(system: System, variables: Mapping, clip: Clip) -> NamedStep:
    """Returns a system's step for clips of one shape, with named arrays.

    Args:
      system: to take the step of.
      variables: arrays or shapes; narrower dtypes are cast to float32 inside.
      clip: as shapes.
    """
    state = jax.eval_shape(system.start, clip)
    named, tree = _by_name(state), jax.tree.structure(state)

    def call(variables: dict, state: dict, clip: dict) -> tuple[dict, dict]:
        before = jax.tree.unflatten(tree, [state[name] for name in named])
        after, found = system.step(unflatten(widened(variables)), before, Clip(**clip))
        leaves = jax.tree.leaves(after)
        return dict(zip(named, leaves, strict=True)), predictions_by_name(found)

    flat = cast(dict[str, Any], flatten(variables))
    return NamedStep(
        call,
        {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in flat.items()},
        named,
        clip._asdict(),
    )


def first_state(system: System, clip: Clip) -> dict[str, jax.Array]:
    """Returns the state before the first clip, by name.

    Args:
      system: to take the state of.
      clip: as shapes.
    """
    zeros = Clip(*(jnp.zeros(x.shape, x.dtype) for x in clip))
    return {
        name: jnp.asarray(leaf) for name, leaf in _by_name(system.start(zeros)).items()
    }


def _by_name(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree in order, by path."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in paths}


def predictions_by_name(found: Predictions) -> dict[str, jax.Array]:
    """Returns predictions by field name, without fields that are None."""
    fields = found._asdict().items()
    return {name: jnp.asarray(value) for name, value in fields if value is not None}


def export_programs(
    system: System,
    variables: Mapping,
    shape: ClipShape,
    *,
    multiple: int,
    batched: bool = False,
) -> ClipPrograms:
    """Lowers a system for clips of one shape, for all platforms at once.

    Args:
      system: to lower.
      variables: arrays or shapes by name.
      shape: shape of the clips; frames may be None if the system allows any number.
      multiple: with any number of frames, clips have 2, 3, .. times as many.
      batched: a step takes the clips of any number of videos, each with its state,
        along a leading axis.

    Raises:
      ValueError: the system cannot be lowered; gives the reason on one line.
    """
    scope, frames = export.SymbolicScope(), None
    if shape.frames is None:
        # At least two: systems take another branch if all frames fit into one chunk.
        scope = export.SymbolicScope([f"{_SYMBOL} >= 2"])
        (frames,) = export.symbolic_shape(f"{multiple}*{_SYMBOL}", scope=scope)
    clip = shapes_like(shape, frames)
    try:
        step = named_step(system, variables, clip)
        start = functools.partial(first_state, system, clip)
        call, taken = step.call, (step.state, step.clip)
        if batched:
            (videos,) = export.symbolic_shape(VIDEOS, scope=scope)
            call = jax.vmap(call, in_axes=(None, 0, 0))
            taken = (_several(step.state, videos), _several(step.clip, videos))
        exported = export.export(jax.jit(call), platforms=PLATFORMS)
        return ClipPrograms(
            export.export(jax.jit(start), platforms=PLATFORMS)(),
            exported(step.variables, *taken),
        )
    except (
        TypeError,  # shapes do not match, or the number of frames is used as a number
        jax.errors.InconclusiveDimensionOperation,  # or is compared with one
        NotImplementedError,  # a platform lacks an operation, as TPUs lack `eig`
    ) as error:
        line = str(error).strip().split("\n")[0]
        raise ValueError(
            f"clips of {shape} (frames x height x width): cannot be lowered:"
            f" {line:.200}"
        ) from error


def _several(arrays: Mapping[str, Any], videos: Any) -> dict[str, Any]:
    """Returns shapes of the arrays with a leading axis of videos."""
    return {
        name: jax.ShapeDtypeStruct((videos, *x.shape), x.dtype)
        for name, x in arrays.items()
    }


def write_programs(
    folder: Path,
    system: System,
    variables: Mapping,
    shapes: Sequence[ClipShape],
    *,
    multiple: int,
    batched: bool = False,
) -> dict[str, ProgramForm]:
    """Writes the programs of a system for several clip shapes.

    Args:
      folder: an existing folder.
      system, variables, multiple, batched: see `export_programs`.
      shapes: shapes of the clips.

    Returns:
      The value of `Manifest.programs`.

    Raises:
      ValueError: see `export_programs`.
      OSError: a file cannot be written; names it.
    """
    forms = {}
    for shape in shapes:
        made = export_programs(
            system, variables, shape, multiple=multiple, batched=batched
        )
        digests = {}
        for kind, program in made._asdict().items():
            path, content = folder / file_name(kind, shape), bytes(program.serialize())
            with naming(path):
                path.write_bytes(content)
            digests[kind] = hashlib.sha256(content).hexdigest()
        state, found = outputs_of(made.step)
        if batched:
            state, found = of_one_video(state), of_one_video(found)
        forms[str(shape)] = ProgramForm(**digests, state=state, predictions=found)
    return forms


def outputs_of(step: export.Exported) -> tuple[dict, dict]:
    """Returns a step's state and predictions as `ArrayForm` by name."""
    state, found = jax.tree.unflatten(step.out_tree, step.out_avals)
    return forms_of(state), forms_of(found)


def manifest_of(
    system: System,
    test: TestSettings,
    programs: Mapping[str, ProgramForm],
    *,
    name: str,
    categories: Sequence[tuple[int, str]],
    batched: bool = False,
) -> Manifest:
    """Returns the manifest of a system's programs.

    Args:
      system: system that was exported.
      test: its test settings.
      programs: see `write_programs`.
      name: name of the system.
      categories: (category id, name) of labels 0, 1, ..
      batched: see `export_programs`.
    """
    return Manifest(
        jax=jax.__version__,
        system=name,
        limit=system.limit,
        categories=tuple(categories),
        top=test.top,
        sizing=SizingForm(
            short_side=test.short_side, long_side=test.long_side, size=test.size
        ),
        window=WindowForm(**system.window._asdict()),
        render=RenderForm(**system.render._asdict()),
        programs=programs,
        batched=batched,
    )
