"""Writes a system as programs in StableHLO, which JAX runs without the system's code.

Source: `jax.export`. A system becomes two programs for every size of a clip: `start`
makes the state before the first clip, `step` takes variables, state and clip and
returns the next state and the predictions. All arrays have names, and the state is
explicit. Variables are arguments: they lie beside the programs once for all sizes, and
the compiler does not have to fold tens of millions of constants.
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


class Step(NamedTuple):
    """`System.step` with named arrays in the place of trees.

    Attributes:
      call: (variables, state, clip) -> (state, predictions), dicts of arrays by name.
      variables, state, clip: its arguments as shapes.
    """

    call: Any
    variables: dict[str, jax.ShapeDtypeStruct]
    state: dict[str, jax.ShapeDtypeStruct]
    clip: dict[str, jax.ShapeDtypeStruct]


def shapes_like(clip: ClipShape, frames: Any = None) -> Clip:
    """A clip as shapes.

    Args:
      clip: its sizes.
      frames: a symbol for a number of frames that is not known.
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


def named_step(system: System, variables: Mapping, clip: Clip) -> Step:
    """The step of a system on clips of one shape, with named arrays.

    Args:
      system: whose step it is.
      variables: arrays or shapes; those in fewer bits become float32 inside.
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
    return Step(
        call,
        {n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in flat.items()},
        named,
        clip._asdict(),
    )


def first_state(system: System, clip: Clip) -> dict[str, jax.Array]:
    """The state before the first clip, by name.

    Args:
      system: whose state it is.
      clip: as shapes.
    """
    zeros = Clip(*(jnp.zeros(x.shape, x.dtype) for x in clip))
    return {
        name: jnp.asarray(leaf) for name, leaf in _by_name(system.start(zeros)).items()
    }


def _by_name(tree: Any) -> dict[str, Any]:
    """The leaves of a tree in order, by their paths."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in paths}


def predictions_by_name(found: Predictions) -> dict[str, jax.Array]:
    """What a system says, without the fields that it leaves out."""
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
    """Lowers a system for clips of one shape, for every platform at once.

    Args:
      system: what to lower.
      variables: arrays or shapes by name.
      shape: of the clips; without a number of frames if the system allows it.
      multiple: such clips have twice as many frames, or three times, ..
      batched: a step takes the clips of any number of videos, with a state for each,
        along a first axis.

    Raises:
      ValueError: it cannot be lowered; one line that says why.
    """
    scope, frames = export.SymbolicScope(), None
    if shape.frames is None:
        # From two on: a system takes another way with frames that fit into one chunk.
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
        TypeError,  # shapes that do not fit, or a number of frames used as a number
        jax.errors.InconclusiveDimensionOperation,  # or compared with one
        NotImplementedError,  # JAX: a platform lacks an operation, as TPUs `eig`
    ) as error:
        line = str(error).strip().split("\n")[0]
        raise ValueError(
            f"clips of {shape} (frames x height x width): cannot be lowered:"
            f" {line:.200}"
        ) from error


def _several(arrays: Mapping[str, Any], videos: Any) -> dict[str, Any]:
    """The same arrays of any number of videos, as shapes."""
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
    """Writes the programs of a system for clips of some shapes.

    Args:
      folder: that exists.
      system, variables, multiple, batched: see `export_programs`.
      shapes: of the clips.

    Returns:
      What `Manifest.programs` holds.

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
    """State and predictions that a program returns, as `ArrayForm` by name."""
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
    """The manifest of a system's programs.

    Args:
      system: whose programs they are.
      test: of its settings.
      programs: see `write_programs`.
      name: of the system.
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
