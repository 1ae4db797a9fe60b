"""Assignment of detections and tracks of RGNNVIS to true objects.

Johnander et al., "Video instance segmentation with recurrent graph neural networks",
GCPR 2021 and IJCV 2022, and the released code of the former. Objects of a clip are
numbered 1 .. G; 0 is the background. Decisions of the network open and match tracks
also in training, so identities can be worked out after all frames. Letters: L frames,
M track slots, N detections of a frame, G true objects of the clip.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.boxes import box_iou
from vis_jax.typing import Array, Bool, Float32, Int32


class Identities(NamedTuple):
    """True objects of the tracks of one clip."""

    owned: Int32[Array, "M"]  # object; 0 = background, or an earlier track has it
    objects: Int32[Array, "M"]  # object of its first detection, duplicates included
    birth: Int32[Array, "M"]  # frame in which the slot was opened; L = never


def primary_objects(
    boxes: Float32[Array, "L N 4"],
    valid: Bool[Array, "L N"],
    true_boxes: Float32[Array, "L G 4"],
    *,
    present: Bool[Array, "L G"],
    threshold: float,
) -> Int32[Array, "L N"]:
    """The object of each detection, at most one detection for each object and frame.

    A detection chooses the object it overlaps most, and keeps it only if no other
    detection overlaps that object more. An object whose best detection prefers another
    object therefore has none. Ties go to the lowest index.

    Deviation from the paper: it asks for an IoU of at least the threshold; the released
    code, as here, for more. The two differ only on exact ties.

    Args:
      boxes: detections in pixels.
      valid: False marks detections that are padding.
      true_boxes: in pixels.
      present: False marks objects that are not in the frame.
      threshold: IoU that a detection has to exceed; 0.5 in the paper.
    """

    def of_frame(
        boxes: Float32[Array, "N 4"],
        valid: Bool[Array, "N"],
        true_boxes: Float32[Array, "G 4"],
        present: Bool[Array, "G"],
    ) -> Int32[Array, "N"]:
        pairs = valid[:, None] & present[None]
        iou = jnp.where(pairs, box_iou(boxes, true_boxes), 0.0)
        truth = iou.argmax(axis=1).astype(jnp.int32)
        best_detection = iou.argmax(axis=0)[truth]
        primary = best_detection == jnp.arange(len(boxes))
        return jnp.where(primary & (iou.max(axis=1) > threshold), truth + 1, 0)

    return jax.vmap(of_frame)(boxes, valid, true_boxes, present)


def identities(
    born: Bool[Array, "L M"], chosen: Int32[Array, "L M"], objects: Int32[Array, "L N"]
) -> Identities:
    """The object of every track: that of the detection which opened it.

    An object belongs to the first track opened on it. Two tracks opened in one frame
    cannot have the same object, because `objects` names each at most once in a frame.

    Args:
      born: the slot was opened in this frame; at most once in a clip, and not in padded
        frames.
      chosen: the detection a slot took in this frame.
      objects: see `primary_objects`.
    """
    first = born.argmax(axis=0)
    slots = jnp.arange(born.shape[1])
    found = born.any(axis=0)
    birth = jnp.where(found, first, born.shape[0]).astype(jnp.int32)
    track_objects = jnp.where(found, objects[first, chosen[first, slots]], 0)
    same = track_objects[:, None] == track_objects[None]
    duplicate = (same & (birth[None] < birth[:, None])).any(axis=1)
    return Identities(jnp.where(duplicate, 0, track_objects), track_objects, birth)


def match_targets(
    tracks: Identities, objects: Int32[Array, "L N"]
) -> Bool[Array, "L M N"]:
    """Pairs of a track in memory before the frame and a detection that are one object.

    Duplicate tracks have none.

    Args:
      tracks: see the type.
      objects: see `primary_objects`.
    """
    owned = jnp.where(_in_memory(tracks.birth, len(objects)), tracks.owned[None], 0)
    return (owned[:, :, None] == objects[:, None]) & (objects[:, None] > 0)


def start_targets(
    tracks: Identities, objects: Int32[Array, "L N"]
) -> Bool[Array, "L N"]:
    """Detections that should open a track: of an object that no track has yet.

    As in the released code, whether the network did open one makes no difference.

    Args:
      tracks: see the type.
      objects: see `primary_objects`.
    """
    return (objects > 0) & ~match_targets(tracks, objects).any(axis=1)


def known_objects(present: Bool[Array, "G L"], *, late: bool) -> Bool[Array, "G"]:
    """Objects whose class is learned.

    Args:
      present: frames that show each object.
      late: all of them; False: those of the first frame, as in the released code.
    """
    return jnp.ones_like(present[:, 0]) if late else present[:, 0]


def class_targets(
    tracks: Identities,
    labels: Int32[Array, "G"],
    *,
    known: Bool[Array, "G"],
    duplicates: bool,
) -> Int32[Array, "M"]:
    """The class of every track, 0 for the background.

    Args:
      tracks: see the type.
      labels: of the objects, 0 .. K - 1; class 1 of the network is label 0.
      known: tracks of all other objects are background, too.
      duplicates: later tracks of an object have its class, as in the released code;
        False: they are background, as in the paper.
    """
    objects = tracks.objects if duplicates else tracks.owned
    index = jnp.maximum(objects - 1, 0)
    return jnp.where((objects > 0) & known[index], labels[index] + 1, 0)


def scored_tracks(
    status: Int32[Array, "L M"], tracks: Identities, *, birth_frame: bool
) -> Bool[Array, "L M"]:
    """In which frames the class of a track is learned.

    Args:
      status: of the slots after the frame, 0 where free.
      tracks: see the type.
      birth_frame: the frame that opened the track counts, as in the paper; False: only
        later ones, as in the released code.
    """
    in_use = status > 0
    return in_use if birth_frame else in_use & _in_memory(tracks.birth, len(status))


def object_slots(
    tracks: Identities,
    frame_valid: Bool[Array, "L"],
    *,
    objects: int,
    whole_clip: bool,
) -> Int32[Array, "L {objects}"]:
    """The slot whose mask is trained on each object, -1 where the object has none.

    Args:
      tracks: see the type.
      frame_valid: False marks padded frames.
      objects: G.
      whole_clip: as in the released code, every frame has the slots of the tracks that
        were in memory before the last frame, so that an object has a slot already
        before its track is opened, and a track of the last frame has no object. There
        the predicted mask is constant: the object counts as missed without a gradient
        of its own, and the mean over objects is over more of them. False: a track has
        its object from the frame that opens it on.
    """
    length = len(frame_valid)
    frames = jnp.arange(length)
    if whole_clip:
        last = jnp.where(frame_valid, frames, -1).max()
        exists = jnp.broadcast_to(tracks.birth < last, (length, len(tracks.birth)))
    else:
        exists = tracks.birth[None] <= frames[:, None]
    owns = tracks.owned[:, None] == jnp.arange(1, objects + 1)[None]
    found = exists[:, :, None] & owns[None]
    slots = found.argmax(axis=1).astype(jnp.int32)
    return jnp.where(found.any(axis=1), slots, -1)


def _in_memory(birth: Int32[Array, "M"], length: int) -> Bool[Array, "L M"]:
    """Tracks that exist before each frame."""
    return birth[None] < jnp.arange(length)[:, None]
