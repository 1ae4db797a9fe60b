"""Per-frame detection of MaskProp, clip by clip.

Each frame is processed alone, or its features are first enriched by those of nearby
frames (STSN, see `layers.temporal_sampling`); then a frame is processed once the last
of these has arrived. Letters: S frames of a clip of the video, K supporting frames on
either side, E frames of delay (0 or K), F = S + E frames processed, N objects per
frame, h w cells of 'p3'.
"""

from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp

from vis_jax.backbones.normalize import normalize
from vis_jax.detectors.two_stage import STRIDES, Levels
from vis_jax.ops.chunks import map_chunks
from vis_jax.structures import Clip
from vis_jax.systems.mask_prop_carriers import (
    LinkObjects,
    MaskPropagator,
    objects_of_frames,
)
from vis_jax.systems.mask_prop_model import (
    SAMPLED,
    FrameFeatures,
    FrameMaps,
    Model,
    find,
    p3_of,
    see,
    see_laterals,
)
from vis_jax.systems.mask_prop_settings import TestSettings
from vis_jax.typing import Array, Bool, Int32, UInt8


class ProcessedFrames(NamedTuple):
    """Frames that have been processed.

    Frames after the first S are valid only at the end of a video.
    """

    views: Any  # as `Carrier.views` returns
    objects: LinkObjects
    real: Bool[Array, "F"]  # frames that exist in the video


@runtime_checkable
class FrameFinder(Protocol):
    """Detects the objects in the frames of a video.

    For a clip it processes frames from `delay` before its first on; the last `delay`
    frames of the clip only if the video ends with them.
    """

    @property
    def delay(self) -> int:
        """E: number of frames by which processing lags behind the input."""
        ...

    def start(self, clip: Clip, /) -> Any:
        """Returns the state before the first frame; see `System`."""
        ...

    def find(
        self, variables: dict, kept: Any, clip: Clip, /
    ) -> tuple[Any, ProcessedFrames]:
        """Returns the state after the clip, and the frames processed.

        Args:
          variables: variables of the whole system.
          kept: state before the clip.
          clip: the next frames.
        """
        ...


@runtime_checkable
class DetectFrames(Protocol):
    """Detects the objects of each frame on its own."""

    def __call__(
        self,
        variables: dict,
        images: UInt8[Array, "T H W 3"],
        size: Int32[Array, "2"],
        /,
    ) -> tuple[Any, LinkObjects]:
        """Returns `Carrier.views` of the frames, and their objects.

        Args:
          variables: variables of the whole system.
          images: frames of one video.
          size: height and width of the content in pixels.
        """
        ...


class Maps(NamedTuple):
    """FPN laterals of frames, finest first, arrays [T _ _ C]."""

    fine: Levels  # used as they are
    coarse: Levels  # enriched by those of other frames


class SingleFrames(NamedTuple):
    """Processes each frame on its own."""

    look: DetectFrames
    chunk: int  # frames at once

    @property
    def delay(self) -> int:
        """See `FrameFinder`."""
        return 0

    def start(self, clip: Clip, /) -> tuple[()]:
        """See `FrameFinder`."""
        del clip
        return ()

    def find(
        self, variables: dict, kept: tuple[()], clip: Clip, /
    ) -> tuple[tuple[()], ProcessedFrames]:
        """See `FrameFinder`."""
        size = jnp.asarray(clip.size)

        def look(images: UInt8[Array, "T H W 3"]) -> tuple[Any, LinkObjects]:
            return self.look(variables, images, size)

        views, objects = map_chunks(look, jnp.asarray(clip.images), self.chunk)
        return kept, ProcessedFrames(views, objects, jnp.asarray(clip.frame_valid))


def make_look(
    model: Model, carrier: MaskPropagator, test: TestSettings
) -> DetectFrames:
    """Builds the detector of single frames.

    Args:
      model: the network.
      carrier: propagates masks.
      test: settings of the config.
    """

    def look(
        variables: dict, images: UInt8[Array, "T H W 3"], size: Int32[Array, "2"]
    ) -> tuple[Any, LinkObjects]:
        seen = see(model, variables, images, size)
        return _views_and_objects(model, carrier, test, variables, images, seen, size)

    return look


@runtime_checkable
class Stages(Protocol):
    """A network that can enrich the features of a frame by those of others."""

    def laterals(
        self,
        variables: dict,
        images: UInt8[Array, "T H W 3"],
        size: Int32[Array, "2"],
        /,
    ) -> Maps:
        """Returns the laterals of each frame on its own.

        Args:
          variables: variables of the whole system.
          images: frames of one video.
          size: height and width of the content in pixels.
        """
        ...

    def no_laterals(self, frames: int, canvas: tuple[int, int], /) -> Maps:
        """Returns zeros in the shape of `laterals`.

        Args:
          frames: number of frames.
          canvas: height and width in pixels.
        """
        ...

    def sample(
        self, variables: dict, centre: FrameMaps, support: Levels, /
    ) -> FrameMaps:
        """Returns the coarse maps of a frame, enriched by its support.

        Args:
          variables: variables of the whole system.
          centre: coarse maps of the frame.
          support: coarse maps of nearby frames.
        """
        ...

    def look(
        self,
        variables: dict,
        images: UInt8[Array, "T H W 3"],
        maps: Maps,
        size: Int32[Array, "2"],
        /,
    ) -> tuple[Any, LinkObjects]:
        """Returns `Carrier.views` of frames, and their objects.

        Args:
          variables: variables of the whole system.
          images: frames of one video.
          maps: maps of these frames, the coarse ones enriched.
          size: height and width of the content in pixels.
        """
        ...


class FrameBuffer(NamedTuple):
    """Buffer of the last frames of a video."""

    images: UInt8[Array, "E H W 3"]  # frames not processed yet
    fine: Levels  # fine maps of these frames
    # Coarse maps of these frames and of the frames before them that support them.
    coarse: Levels
    real: Bool[Array, "F"]  # whether the frames of `coarse` exist in the video


class FramesInContext(NamedTuple):
    """Processes each frame with K buffered frames on either side.

    Attributes:
      stages: stages of the network; see the type.
      radius: K.
      delay: K, or 0 for whole videos.
      chunk: frames at once.
    """

    stages: Stages
    radius: int
    delay: int
    chunk: int

    def start(self, clip: Clip, /) -> FrameBuffer:
        """See `FrameFinder`."""
        height, width = clip.images.shape[1:3]
        waiting = self.stages.no_laterals(self.delay, (height, width))
        before = self.stages.no_laterals(2 * self.delay, (height, width))
        return FrameBuffer(
            jnp.zeros((self.delay, height, width, 3), jnp.uint8),
            waiting.fine,
            before.coarse,
            jnp.zeros(2 * self.delay, bool),
        )

    def find(
        self, variables: dict, kept: FrameBuffer, clip: Clip, /
    ) -> tuple[FrameBuffer, ProcessedFrames]:
        """See `FrameFinder`."""
        size, count = jnp.asarray(clip.size), len(clip.frame_valid)
        images = jnp.asarray(clip.images)

        def read(images: UInt8[Array, "T H W 3"]) -> Maps:
            return self.stages.laterals(variables, images, size)

        maps = map_chunks(read, images, self.chunk)
        new = FrameBuffer(images, maps.fine, maps.coarse, jnp.asarray(clip.frame_valid))
        frames = jax.tree.map(lambda *x: jnp.concatenate(x), kept, new)
        rows = jnp.arange(count + self.delay, dtype=jnp.int32)

        def enrich(row: Int32[Array, ""]) -> FrameMaps:
            # Frame `row` has index `row + delay` among the coarse maps.
            centre = row + self.delay
            around = frames_around(frames.real, centre, self.radius)
            own, nearby = (
                jax.tree.map(lambda x, at=at: x[at], frames.coarse)
                for at in (centre, around)
            )
            return self.stages.sample(variables, own, nearby)

        def look(part: _Part) -> tuple[Any, LinkObjects]:
            maps = Maps(part.fine, jax.lax.map(enrich, part.rows))
            return self.stages.look(variables, part.images, maps, size)

        def look_if_wanted(part: _Part) -> tuple[Any, LinkObjects]:
            none = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(look, part)
            )
            return jax.lax.cond(part.wanted.any(), look, lambda _: none, part)

        real = frames.real[self.delay :]
        wanted = real & ((rows < count) | jnp.asarray(clip.last))
        parts = _Part(rows, wanted, frames.images, frames.fine)
        run = look_if_wanted if self.delay else look
        views, objects = map_chunks(run, parts, self.chunk)
        after = jax.tree.map(lambda x: x[count:], frames)
        return after, ProcessedFrames(views, objects, real)


class _Part(NamedTuple):
    """A subset of the frames being processed."""

    rows: Int32[Array, "T"]  # their indices
    wanted: Bool[Array, "T"]
    images: UInt8[Array, "T H W 3"]
    fine: Levels


def frames_around(
    real: Bool[Array, "F"], centre: Int32[Array, ""], radius: int
) -> Int32[Array, "L"]:
    """Returns the indices of the frames around one.

    Bertasius et al., "Object Detection in Video with Spatiotemporal Sampling Networks",
    ECCV 2018: indices are clamped to the first and last frame of the video.

    Args:
      real: frames that exist in the video, without gaps.
      centre: index of the frame.
      radius: frames on either side.
    """
    first, last = jnp.argmax(real), len(real) - 1 - jnp.argmax(real[::-1])
    steps = [n for n in range(-radius, radius + 1) if n]
    return jnp.clip(centre + jnp.array(steps, jnp.int32), first, last).astype(jnp.int32)


class NetworkStages(NamedTuple):
    """The MaskProp network as `Stages`."""

    model: Model
    carrier: MaskPropagator
    test: TestSettings

    def laterals(
        self,
        variables: dict,
        images: UInt8[Array, "T H W 3"],
        size: Int32[Array, "2"],
        /,
    ) -> Maps:
        """See `Stages`."""
        pixels = normalize(images, size, style=self.model.style)
        found = self.model.apply(variables, pixels, False, method="laterals")
        laterals = cast(Levels, found)
        return Maps(laterals[:-SAMPLED], laterals[-SAMPLED:])

    def no_laterals(self, frames: int, canvas: tuple[int, int], /) -> Maps:
        """See `Stages`."""
        fpn = self.model.fpn
        maps = tuple(
            jnp.zeros(
                (frames, *(side // stride for side in canvas), fpn.dim), fpn.dtype
            )
            for stride in STRIDES[:-1]
        )
        return Maps(maps[:-SAMPLED], maps[-SAMPLED:])

    def sample(
        self, variables: dict, centre: FrameMaps, support: Levels, /
    ) -> FrameMaps:
        """See `Stages`."""
        valid = jnp.ones(len(support[0]), bool)
        found = self.model.apply(variables, centre, support, valid, method="sample")
        return cast(FrameMaps, found)

    def look(
        self,
        variables: dict,
        images: UInt8[Array, "T H W 3"],
        maps: Maps,
        size: Int32[Array, "2"],
        /,
    ) -> tuple[Any, LinkObjects]:
        """See `Stages`."""
        seen = see_laterals(
            self.model, variables, images, maps.fine + maps.coarse, size
        )
        return _views_and_objects(*self, variables, images, seen, size)


def _views_and_objects(
    model: Model,
    carrier: MaskPropagator,
    test: TestSettings,
    variables: dict,
    images: UInt8[Array, "T H W 3"],
    seen: FrameFeatures,
    size: Int32[Array, "2"],
) -> tuple[Any, LinkObjects]:
    p3 = p3_of(seen.features.levels)
    found = find(model, variables, seen, size, refined=test.refine)
    cells = (p3.shape[1], p3.shape[2])
    return carrier.views(variables, images, p3), objects_of_frames(found, cells, test)
