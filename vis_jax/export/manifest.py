"""`program.json`: describes the exported programs in a folder and how to run them.

It stores what JAX does not keep in a program: names, classes, and the host's
preprocessing of frames and postprocessing of masks. Its fields are read and checked
like settings.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vis_jax.converters.files import read_object
from vis_jax.formats.disk import naming
from vis_jax.settings import Count, Natural, Share, read_settings, section, to_dict
from vis_jax.structures import Render, Window

MANIFEST = "program.json"
START, STEP = "start", "step"  # the kinds of programs
ANY = "any"  # stands for the frames of a program that takes any number
MOST_SIDE = 1 << 14  # pixels of a canvas side
MOST_FRAMES = 1 << 14
_SHAPE = re.compile(r"(any|[1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})")

Dtype = Literal["bool", "int8", "uint8", "int32", "uint32", "bfloat16", "float32"]


class ClipShape(NamedTuple):
    """Shape of the clips that a program takes."""

    frames: int | None  # None: any number
    height: int  # pixels of the canvas
    width: int

    def __str__(self) -> str:
        frames = ANY if self.frames is None else self.frames
        return f"{frames}x{self.height}x{self.width}"


@section
class ArrayForm:
    """Dtype and shape of an input or output array of a program."""

    dtype: Dtype
    # A string for an axis that depends on the number of frames.
    shape: tuple[int | str, ...]


@section
class ProgramForm:
    """The programs `start` and `step` for clips of one shape."""

    # SHA-256 of each file in hexadecimal digits; a damaged program is refused.
    start: str
    step: str
    state: Mapping[str, ArrayForm]  # input and output of a step
    predictions: Mapping[str, ArrayForm]  # fields of `structures.Predictions`


@section
class SizingForm:
    """Sizes that frames are resized to, from the settings `test`."""

    short_side: Count
    long_side: Count
    size: tuple[Count, ...] = ()

    def __post_init__(self) -> None:
        if len(self.size) not in (0, 2):
            raise ValueError(f"size: expected (height, width) or (), got {self.size}")


@section
class WindowForm:
    """`structures.Window` as stored in the file."""

    length: Count | None
    stride: Count | None
    delay: Natural
    buckets: tuple[Count, ...]
    multiple: Count = 32

    def __post_init__(self) -> None:
        if (self.length is None) != (self.stride is None):
            raise ValueError(f"stride: expected one with a length, got {self.stride}")
        if self.length is None and not self.buckets:
            raise ValueError("buckets: expected at least one length, got ()")


@section
class RenderForm:
    """`structures.Render` as stored in the file."""

    overlap: Literal["independent", "argmax", "rank"]
    least_visible: Share
    aligned: bool


@section
class Manifest:
    """Content of `program.json`."""

    version: Literal[1] = 1  # version of this file's layout
    jax: str  # version of JAX that exported the programs
    system: str  # name of the system, for information only
    limit: str  # setting that limits the number of tracks
    categories: tuple[tuple[int, str], ...]  # (category id, name) of labels 0, 1, ..
    top: Count  # tracks returned per video
    sizing: SizingForm
    window: WindowForm
    render: RenderForm
    programs: Mapping[str, ProgramForm]  # by clip shape, such as 5x384x640
    # A step takes any number of videos at once: state, clip and predictions have one
    # more leading axis than `programs` lists.
    batched: bool = False

    def __post_init__(self) -> None:
        if not self.programs:
            raise ValueError("programs: expected at least one, got none")
        if not self.categories:
            raise ValueError("categories: expected at least one, got none")
        lengths = {shape.frames for shape in self.shapes()}
        expected = {self.window.length}
        if self.window.length is None and None not in lengths:
            expected = {*self.window.buckets}
        if lengths != expected:
            raise ValueError(
                f"programs: expected some for clips of {expected} frames, as window"
                f" says, got {lengths}"
            )

    def shapes(self) -> dict[ClipShape, ProgramForm]:
        """Returns the programs by clip shape."""
        return {shape_of(name): form for name, form in self.programs.items()}

    def window_of(self) -> Window:
        """Returns the window that splits a video into clips."""
        return Window(**vars(self.window))

    def render_of(self) -> Render:
        """Returns the rule that turns masks into pixels."""
        return Render(**vars(self.render))


def shape_of(name: str) -> ClipShape:
    """Parses a clip shape such as 5x384x640 or anyx384x640.

    Raises:
      ValueError: the name has another form, or exceeds the largest sizes.
    """
    found = _SHAPE.fullmatch(name)
    frames = None if not found or found[1] == ANY else int(found[1])
    sides = (int(found[2]), int(found[3])) if found else (0, 0)
    if not found or max(sides) > MOST_SIDE or (frames or 1) > MOST_FRAMES:
        raise ValueError(
            "programs: expected frames x height x width, as 5x384x640, up to"
            f" {MOST_FRAMES} frames and {MOST_SIDE} pixels a side, got {name!r:.40}"
        )
    return ClipShape(frames, *sides)


def canvases_of(shapes: Iterable[ClipShape]) -> tuple[tuple[int, int], ...]:
    """Returns height and width in pixels of the distinct canvases of clip shapes."""
    return tuple(dict.fromkeys((shape.height, shape.width) for shape in shapes))


def file_name(kind: str, shape: ClipShape, suffix: str = ".jax_export") -> str:
    """Returns the file name of a program.

    Args:
      kind: START or STEP.
      shape: shape of its clips.
      suffix: suffix of the file format.
    """
    return f"{kind}_{shape}{suffix}"


def forms_of(arrays: Mapping[str, Any]) -> dict[str, ArrayForm]:
    """Returns the dtype and shape of each array."""
    return {
        name: ArrayForm(
            dtype=x.dtype.name,
            shape=tuple(n if isinstance(n, int) else str(n) for n in x.shape),
        )
        for name, x in arrays.items()
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `program.json`.

    Raises:
      OSError: it cannot be written; names it.
    """
    path = folder / MANIFEST
    with naming(path):
        path.write_text(json.dumps(to_dict(manifest), indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Reads `program.json`.

    Raises:
      ValueError: the file is missing or damaged, or a field is not as `write_manifest`
        writes it; names the file and the field.
    """
    path = folder / MANIFEST
    content = read_object(path)
    try:
        return read_settings(Manifest, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
