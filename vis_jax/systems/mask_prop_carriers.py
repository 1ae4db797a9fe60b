"""Objects of a frame in MaskProp, and ways to propagate their masks to nearby frames.

Letters: L frames of a clip around a centre frame, N objects per frame, K classes, h w
cells of 'p3'.
"""

from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp

from vis_jax.association.propagation import PreparedFeatures
from vis_jax.ops.flow import compose, flow_between, grey_at_stride, warp
from vis_jax.ops.masks import paste_on_level
from vis_jax.ops.nms import group_duplicates
from vis_jax.ops.padding import zero_padding
from vis_jax.structures import Detections
from vis_jax.systems.mask_prop_model import STRIDE, Model, OutputObjects
from vis_jax.systems.mask_prop_settings import FlowSettings, TestSettings
from vis_jax.typing import Array, Bool, Float32, Int32, UInt8


class LinkObjects(NamedTuple):
    """Objects of frames in the form used for linking, best first."""

    masks: Float32[Array, "*lead N h w"]  # probabilities on 'p3'
    valid: Bool[Array, "*lead N"]
    class_scores: Float32[Array, "*lead N K"]  # see `ClipTracks`
    mask_logits: Float32[Array, "*lead N s s"]  # masks to output ..
    mask_boxes: Float32[Array, "*lead N 4"]  # .. in these boxes


def objects_of_frames(
    found: OutputObjects, cells: tuple[int, int], test: TestSettings
) -> LinkObjects:
    """Applies `objects_of_frame` to each frame."""

    def one(found: OutputObjects) -> LinkObjects:
        return objects_of_frame(found, cells, test)

    return jax.vmap(one)(found)


def objects_of_frame(
    found: OutputObjects, cells: tuple[int, int], test: TestSettings
) -> LinkObjects:
    """Prepares the objects of a frame for linking.

    Args:
      found: detections of the frame; duplicates of one object under several labels are
        merged.
      cells: height and width of 'p3'.
      test: settings of the config.
    """
    detections, scores = found.detections, found.detections.scores
    masks, owner = _masks_and_owners(found, cells, test)
    valid = detections.valid & (owner == jnp.arange(len(owner), dtype=jnp.int32))
    class_scores = found.class_probs
    if test.scoring != "vector_mean":
        # Padding has the label K, which JAX drops as out of bounds.
        class_scores = jnp.zeros_like(class_scores)
        class_scores = class_scores.at[owner, detections.labels].max(
            scores, mode="drop"
        )
    if test.binarize:
        masks = (masks > 0.5).astype(jnp.float32)
    return LinkObjects(
        masks=jnp.where(valid[:, None, None], masks, 0.0),
        valid=valid,
        class_scores=jnp.where(valid[:, None], class_scores, 0.0),
        mask_logits=detections.mask_logits,
        mask_boxes=jnp.asarray(detections.covered),
    )


def distinct_detections(
    found: OutputObjects, cells: tuple[int, int], test: TestSettings
) -> Detections:
    """Drops duplicate detections, so that trackers link the same ones as propagation.

    Args:
      found: detections of frames.
      cells: height and width of 'p3'.
      test: settings of the config.

    Returns:
      The best detection of each object, best first.
    """

    def one(found: OutputObjects) -> Detections:
        _, owner = _masks_and_owners(found, cells, test)
        numbers = jnp.arange(len(owner), dtype=jnp.int32)
        keep = found.detections.valid & (owner == numbers)
        order = jnp.argsort(~keep, stable=True)

        def moved(x: Array) -> Array:
            return zero_padding(x, keep)[order]

        kept = jax.tree.map(moved, found.detections._replace(valid=keep))
        classes = found.class_probs.shape[-1]
        return kept._replace(labels=jnp.where(kept.valid, kept.labels, classes))

    return jax.vmap(one)(found)


def _masks_and_owners(
    found: OutputObjects, cells: tuple[int, int], test: TestSettings
) -> tuple[Float32[Array, "N h w"], Int32[Array, "N"]]:
    """Returns a frame's masks on 'p3', and the best duplicate of each detection."""
    detections = found.detections
    masks = paste_on_level(found.probs, detections.boxes, size=cells, stride=STRIDE)
    if not test.duplicates:
        return masks, jnp.arange(len(masks), dtype=jnp.int32)
    owner = group_duplicates(
        masks > 0.5,
        detections.scores,
        detections.valid,
        iou_threshold=test.duplicates,
    )
    return masks, owner


@runtime_checkable
class MaskPropagator(Protocol):
    """A way to propagate the masks of a frame to the frames around it."""

    def views(
        self, variables: dict, images: UInt8[Array, "T H W 3"], p3: Array, /
    ) -> Any:
        """Computes the features of each frame that propagation needs.

        Args:
          variables: variables of the whole system.
          images: the frames.
          p3: features of the frames, [T h w C].

        Returns:
          Arrays with the frames as their first axis.
        """
        ...

    def no_views(self, frames: int, cells: tuple[int, int], /) -> Any:
        """Returns zeros in the shape of `views`.

        Args:
          frames: number of frames.
          cells: height and width of 'p3'.
        """
        ...

    def carry(
        self,
        variables: dict,
        centre: Any,
        others: Any,
        frame_valid: Bool[Array, "L"],
        objects: LinkObjects,
        /,
    ) -> Float32[Array, "N L h w"]:
        """Returns the masks of the objects in all frames of a clip.

        Args:
          variables: variables of the whole system.
          centre: view of the objects' own frame.
          others: views of the L frames.
          frame_valid: False marks padding, whose content is ignored.
          objects: objects of the centre frame.
        """
        ...


class Deform(NamedTuple):
    """Propagates masks with the propagation branch."""

    model: Model

    def views(
        self, variables: dict, images: UInt8[Array, "T H W 3"], p3: Array, /
    ) -> PreparedFeatures:
        """See `MaskPropagator`."""
        del images

        def prepare(p3: Array) -> PreparedFeatures:
            found = self.model.apply(variables, p3, method="prepare")
            return cast(PreparedFeatures, found)

        return jax.vmap(prepare)(p3)

    def no_views(self, frames: int, cells: tuple[int, int], /) -> PreparedFeatures:
        """See `MaskPropagator`."""
        branch = self.model.propagation
        lead, dim = (frames, *cells), branch.settings.dim

        def zeros(channels: int) -> Array:
            return jnp.zeros((*lead, channels), branch.dtype)

        return PreparedFeatures(
            zeros(branch.channels), zeros(dim), zeros(dim), jnp.zeros(lead, jnp.float32)
        )

    def carry(
        self,
        variables: dict,
        centre: PreparedFeatures,
        others: PreparedFeatures,
        frame_valid: Bool[Array, "L"],
        objects: LinkObjects,
        /,
    ) -> Float32[Array, "N L h w"]:
        """See `MaskPropagator`."""
        taps = self.model.apply(variables, centre.features, method="taps")

        def to_frame(frame: tuple[PreparedFeatures, Array]) -> Float32[Array, "N h w"]:
            other, in_video = frame

            def carry() -> Float32[Array, "N h w"]:
                found = self.model.apply(
                    variables,
                    centre,
                    taps,
                    other,
                    objects.masks,
                    objects.valid,
                    method="propagate",
                )
                return cast(Array, found)

            return jax.lax.cond(in_video, carry, lambda: jnp.zeros_like(objects.masks))

        return jnp.moveaxis(jax.lax.map(to_frame, (others, frame_valid)), 0, 1)


class Flow(NamedTuple):
    """Propagates masks by optical flow; they are 0 where the flow leaves the frame."""

    settings: FlowSettings

    def views(
        self, variables: dict, images: UInt8[Array, "T H W 3"], p3: Array, /
    ) -> Float32[Array, "T h w"]:
        """See `MaskPropagator`; returns the brightness of each cell."""
        del variables, p3
        pixels = images.astype(jnp.float32)
        return jax.vmap(lambda image: grey_at_stride(image, stride=STRIDE))(pixels)

    def no_views(
        self, frames: int, cells: tuple[int, int], /
    ) -> Float32[Array, "T h w"]:
        """See `MaskPropagator`."""
        return jnp.zeros((frames, *cells), jnp.float32)

    def carry(
        self,
        variables: dict,
        centre: Float32[Array, "h w"],
        others: Float32[Array, "L h w"],
        frame_valid: Bool[Array, "L"],
        objects: LinkObjects,
        /,
    ) -> Float32[Array, "N L h w"]:
        """See `MaskPropagator`."""
        del variables
        if self.settings.chained:
            flows = self._chained(others)
        else:
            flows = self._direct(centre, others, frame_valid)
        maps = jnp.moveaxis(objects.masks, 0, -1)
        tubes = jax.lax.map(lambda flow: warp(maps, flow), flows)
        return jnp.moveaxis(tubes, -1, 0)

    def _between(
        self, a: Float32[Array, "h w"], b: Float32[Array, "h w"]
    ) -> Float32[Array, "h w 2"]:
        levels, warps = self.settings.levels, self.settings.warps
        return flow_between(a, b, levels=levels, warps=warps)

    def _direct(
        self,
        centre: Float32[Array, "h w"],
        others: Float32[Array, "L h w"],
        frame_valid: Bool[Array, "L"],
    ) -> Float32[Array, "L h w 2"]:
        """Returns the flow from every frame to the centre."""

        def one(frame: tuple[Array, Array]) -> Float32[Array, "h w 2"]:
            other, in_video = frame
            none = jnp.zeros((*other.shape, 2), jnp.float32)
            return jax.lax.cond(
                in_video, lambda: self._between(other, centre), lambda: none
            )

        return jax.lax.map(one, (others, frame_valid))

    def _chained(self, others: Float32[Array, "L h w"]) -> Float32[Array, "L h w 2"]:
        """Returns the same flow composed from that between neighbouring frames."""
        radius = len(others) // 2
        none = jnp.zeros((*others.shape[1:], 2), jnp.float32)

        def onward(
            flow: Float32[Array, "h w 2"], pair: tuple[Array, Array]
        ) -> tuple[Array, Array]:
            farther, nearer = pair
            flow = compose(self._between(farther, nearer), flow)
            return flow, flow

        def from_centre(frames: Float32[Array, "R h w"]) -> Float32[Array, "_ h w 2"]:
            return jax.lax.scan(onward, none, (frames[1:], frames[:-1]))[1]

        before = from_centre(others[radius::-1])[::-1]
        return jnp.concatenate([before, none[None], from_centre(others[radius:])])
