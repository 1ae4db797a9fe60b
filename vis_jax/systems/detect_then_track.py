"""Any detector with any tracker: per-frame detection, then linking.

Yang et al., "Video Instance Segmentation", ICCV 2019. Letters: S track slots, N objects
per frame, K classes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from vis_jax.ops.chunks import map_chunks
from vis_jax.settings import Count, OneOf, Share, section
from vis_jax.structures import Appearance, Clip, Detections, Predictions
from vis_jax.systems import system
from vis_jax.systems.system import Init, Start, Step
from vis_jax.trackers import TRACKERS, Build
from vis_jax.trackers import Settings as Trackers
from vis_jax.trackers.tracker import Begin, Tracker
from vis_jax.typing import Array, Float32, Int32, UInt8


@section
class TestSettings(system.TestSettings):
    """`test` of systems that detect per frame, then link."""

    # Frames of a clip with test.mode "clip"; clips do not overlap. Does not affect the
    # result.
    clip_length: Count = 1
    score: Share = 0.05  # minimum score of a detection
    nms: Share = 0.5  # IoU above which the better of two boxes of a class suppresses
    objects: Count = 10  # most detections per frame
    tracks: Count = 360  # most tracks per video
    tracker: Annotated[str, OneOf(TRACKERS)] = "mask_track"  # links the detections
    trackers: Trackers = Trackers()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tta:
            raise ValueError(f"tta: expected () with a tracker, got {self.tta}")


@runtime_checkable
class Features(Protocol):
    """Features that a detector computes from frames before detection."""

    def __call__(
        self,
        variables: dict,
        images: UInt8[Array, "T H W 3"],
        size: Int32[Array, "2"],
        /,
    ) -> Any:
        """Returns arrays with the frames as their first axis.

        Args:
          variables: variables of the whole system.
          images: frames of one video.
          size: height and width of the content, at the top left.
        """
        ...


@runtime_checkable
class Detect(Protocol):
    """Finds the objects of frames."""

    def __call__(
        self, variables: dict, features: Any, size: Int32[Array, "2"], /
    ) -> Detections:
        """Returns the objects, [T, N].

        Args:
          variables: variables of the whole system.
          features: features of the frames.
          size: height and width of the content, at the top left.
        """
        ...


@runtime_checkable
class Describe(Protocol):
    """Computes appearance features of given objects, such as the ground truth."""

    def __call__(
        self, variables: dict, features: Any, boxes: Float32[Array, "T N 4"], /
    ) -> Appearance:
        """Returns the appearance features, [T, N].

        Args:
          variables: variables of the whole system.
          features: features of the frames.
          boxes: x1 y1 x2 y2 in canvas pixels.
        """
        ...


@runtime_checkable
class Empty(Protocol):
    """Empty detections, with the shapes of the detector's output."""

    def __call__(self, frames: int, /) -> Detections:
        """Returns detections [T, N], all padding."""
        ...


class Detector(NamedTuple):
    """Pure functions on frames of one video, each frame by itself."""

    init: Init
    features: Features
    detect: Detect
    describe: Describe
    empty: Empty


class Votes(NamedTuple):
    """Class and score votes of each track's detections."""

    scores: Float32[Array, "S"]  # sums
    counts: Float32[Array, "S"]
    labels: Float32[Array, "S K"]


class State(NamedTuple):
    """State of a video after some frame."""

    tracker: Any
    votes: Votes


@runtime_checkable
class Link(Protocol):
    """Links the detections of the next frames and updates tracks and votes."""

    def __call__(
        self,
        variables: dict,
        state: State,
        clip: Clip,
        found: Detections,
        features: Any = None,
        /,
    ) -> tuple[State, Predictions]:
        """Returns the state after the frames, and all tracks so far.

        Args:
          variables: variables of the whole system.
          state: before the frames.
          clip: the frames.
          found: [T, N], detections of these frames.
          features: features of the frames, if the tracker reads them.
        """
        ...


class Linker(NamedTuple):
    """The second half of a system: from detections to tracks.

    Each tracker slot is one track and keeps its number.
    """

    start: Begin
    link: Link


def make_linker(tracker: Tracker, *, slots: int, classes: int) -> Linker:
    """Combines a tracker with the votes of its detections.

    Args:
      tracker: links detections.
      slots: most tracks of a video.
      classes: K.
    """

    def start(clip: Clip, detections: Detections) -> State:
        return State(tracker.start(clip, detections), no_votes(slots, classes))

    def link(
        variables: dict,
        state: State,
        clip: Clip,
        found: Detections,
        features: Any = None,
    ) -> tuple[State, Predictions]:
        real = found.valid & jnp.asarray(clip.frame_valid)[:, None]
        found = found._replace(valid=real)
        inner, tracked = tracker.track(variables, state.tracker, clip, found, features)
        if (tracked.shown is not None) != tracker.draws:
            raise ValueError(
                "tracker: expected masks of its own if and only if draws, which is"
                f" {tracker.draws}"
            )
        shown = found if tracked.shown is None else tracked.shown
        votes = add_votes(state.votes, tracked.track_ids, shown)
        seen = predictions(votes, tracked.track_ids, shown)
        return State(inner, votes), seen._replace(lost=tracked.lost)

    return Linker(start, link)


def start_and_step(
    detector: Detector, tracker: Tracker, *, slots: int, classes: int, chunk: int
) -> tuple[Start, Step]:
    """Returns `start` and `step` of a system, for clips of any length.

    Args:
      detector: finds objects in frames.
      tracker: links them.
      slots: most tracks of a video.
      classes: K.
      chunk: frames that the detector processes at once.
    """
    linker = make_linker(tracker, slots=slots, classes=classes)

    def start(clip: Clip) -> State:
        return linker.start(clip, detector.empty(clip.frame_valid.shape[0]))

    def step(variables: dict, state: State, clip: Clip) -> tuple[State, Predictions]:
        size = jnp.asarray(clip.size)

        def find(images: UInt8[Array, "T H W 3"]) -> tuple[Detections, Any]:
            features = detector.features(variables, images, size)
            found = detector.detect(variables, features, size)
            return found, features if tracker.reads_features else None

        found, features = map_chunks(find, jnp.asarray(clip.images), chunk)
        return linker.link(variables, state, clip, found, features)

    return start, step


def no_votes(slots: int, classes: int) -> Votes:
    """Returns empty votes."""
    zeros = jnp.zeros((slots,), jnp.float32)
    return Votes(zeros, zeros, jnp.zeros((slots, classes), jnp.float32))


def add_votes(votes: Votes, track_ids: Int32[Array, "T N"], shown: Detections) -> Votes:
    """Adds the detections of some frames; those with a score of 0 have no vote."""
    slots, classes = votes.labels.shape
    counted = (track_ids > 0) & shown.valid & (shown.scores > 0)
    slot = jnp.where(counted, track_ids - 1, slots).ravel()
    label = jnp.minimum(shown.labels, classes - 1).ravel()
    return Votes(
        votes.scores.at[slot].add(shown.scores.ravel(), mode="drop"),
        votes.counts.at[slot].add(1.0, mode="drop"),
        votes.labels.at[slot, label].add(1.0, mode="drop"),
    )


def class_probs(votes: Votes) -> Float32[Array, "S K"]:
    """Returns each track's mean score at its most frequent class, the first on ties.

    Yang et al., section 4; all other classes, and tracks without votes, get 0.
    """
    mean = votes.scores / jnp.maximum(votes.counts, 1.0)
    label = votes.labels.argmax(axis=1)
    return mean[:, None] * jax.nn.one_hot(label, votes.labels.shape[1])


def predictions(
    votes: Votes, track_ids: Int32[Array, "T N"], shown: Detections
) -> Predictions:
    """Returns all tracks so far, with the detections of some frames as their masks."""
    count = len(votes.counts)
    return Predictions(
        class_probs=class_probs(votes),
        track_ids=jnp.arange(1, count + 1, dtype=jnp.int32),
        valid=votes.counts > 0,
        slots=jnp.where(shown.valid, track_ids, 0) - 1,
        mask_logits=shown.mask_logits,
        mask_boxes=shown.covered,
    )


def make_tracker(test: TestSettings, trackers: Mapping[str, Build]) -> Tracker:
    """Builds the tracker `test.tracker` with its settings and `test.tracks` slots.

    Args:
      test: settings of the config.
      trackers: available trackers by name.

    Raises:
      ValueError: the tracker needs the whole video, which `test.mode` does not allow.
    """
    values = getattr(test.trackers, test.tracker)
    tracker = trackers[test.tracker](values, test.tracks)
    if test.mode == "clip" and tracker.offline:
        raise ValueError(
            f"test.mode: expected 'video' with test.tracker {test.tracker!r}, which"
            " needs all frames, got 'clip'"
        )
    return tracker
