"""Assigns RGNNVIS detections and tracks to ground-truth objects.

Johnander et al., "Video instance segmentation with recurrent graph neural networks",
GCPR 2021 and IJCV 2022, and the released code of the former. Objects of a clip are
numbered 1 .. G; 0 is the background. The network's decisions open and match tracks in
training, too, so identities are determined after all frames. Letters: L frames, M track
slots, N detections per frame, G ground-truth objects of the clip.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vis_jax.ops.boxes import box_iou
from vis_jax.typing import Array, Bool, Float32, Int32


class Identities(NamedTuple):
    """Ground-truth objects of one clip's tracks."""

    owned: Int32[Array, "M"]  # object; 0 = background, or owned by an earlier track
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
    """Returns the object of each detection, at most one detection per object and frame.

    A detection chooses the object it overlaps most, and keeps it only if no other
    detection overlaps that object more. An object whose best detection prefers another
    object therefore has none. Ties go to the lowest index.

    Deviation from the paper: it requires an IoU of at least the threshold; the released
    code and this function require more. They differ only on exact ties.

    Args:
      boxes: detections in pixels.
      valid: False marks padded detections.
      true_boxes: in pixels.
      present: False marks objects absent from the frame.
      threshold: IoU that a detection must exceed; 0.5 in the paper.
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
    """Returns the object of every track: that of the detection which opened it.

    An object belongs to the first track opened on it. Two tracks opened in one frame
    cannot have the same object, because `objects` lists each at most once per frame.

    Args:
      born: the slot was opened in this frame; at most once in a clip, and not in padded
        frames.
      chosen: the detection of each slot in this frame.
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
    """Returns pairs of an existing track and a detection that show the same object.

    Duplicate tracks have no pairs.

    Args:
      tracks: see the type.
      objects: see `primary_objects`.
    """
    owned = jnp.where(_in_memory(tracks.birth, len(objects)), tracks.owned[None], 0)
    return (owned[:, :, None] == objects[:, None]) & (objects[:, None] > 0)


def start_targets(
    tracks: Identities, objects: Int32[Array, "L N"]
) -> Bool[Array, "L N"]:
    """Returns detections that should open a track: their object has no track yet.

    As in the released code, regardless of whether the network opened one.

    Args:
      tracks: see the type.
      objects: see `primary_objects`.
    """
    return (objects > 0) & ~match_targets(tracks, objects).any(axis=1)


def known_objects(present: Bool[Array, "G L"], *, late: bool) -> Bool[Array, "G"]:
    """Returns the objects whose class is trained.

    Args:
      present: frames with each object.
      late: all of them; False: only those in the first frame, as in the released code.
    """
    return jnp.ones_like(present[:, 0]) if late else present[:, 0]


def class_targets(
    tracks: Identities,
    labels: Int32[Array, "G"],
    *,
    known: Bool[Array, "G"],
    duplicates: bool,
) -> Int32[Array, "M"]:
    """Returns the class of every track, 0 for the background.

    Args:
      tracks: see the type.
      labels: labels of the objects, 0 .. K - 1; class 1 of the network is label 0.
      known: objects to train; tracks of all others are background, too.
      duplicates: later tracks of an object get its class, as in the released code;
        False: background, as in the paper.
    """
    objects = tracks.objects if duplicates else tracks.owned
    index = jnp.maximum(objects - 1, 0)
    return jnp.where((objects > 0) & known[index], labels[index] + 1, 0)


def scored_tracks(
    status: Int32[Array, "L M"], tracks: Identities, *, birth_frame: bool
) -> Bool[Array, "L M"]:
    """Returns the frames in which each track's class is trained.

    Args:
      status: status of the slots after the frame, 0 where free.
      tracks: see the type.
      birth_frame: include the frame that opened the track, as in the paper; False: only
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
    """Returns the slot whose mask is trained on each object, -1 for none.

    Args:
      tracks: see the type.
      frame_valid: False marks padded frames.
      objects: G.
      whole_clip: as in the released code, every frame uses the tracks that were in
        memory before the last frame, so that an object has a slot before its track is
        opened, and a track opened in the last frame has no object. Before opening, the
        predicted mask is constant: the object counts as missed without a gradient of
        its own, and the mean runs over more objects. False: a track has its object from
        its opening frame on.
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
    """Returns the tracks that exist before each frame."""
    return birth[None] < jnp.arange(length)[:, None]
