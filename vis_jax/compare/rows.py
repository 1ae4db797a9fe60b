"""Builds the rows to compare: trackers, subsets of a tracker's cues, and oracles."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from data_pipeline.datasets.dataset import Video
from vis_jax.compare.link import LinkRules, LinkVideo, make_link
from vis_jax.compare.oracles import OracleRule, identify, make_perfect
from vis_jax.compare.table import Row, VideoInputs
from vis_jax.evaluate.infer import make_stream
from vis_jax.results.collect import collect
from vis_jax.results.video import VideoResult
from vis_jax.settings import to_dict
from vis_jax.structures import Clip
from vis_jax.systems.detect_then_track import Detector, TestSettings
from vis_jax.systems.system import System
from vis_jax.systems.system import TestSettings as SystemTest
from vis_jax.trackers import Build
from vis_jax.trackers.tracker import Tracker

TRACKERS, CUES, ORACLES, VARIED = "trackers", "cues", "oracles", "varied"
# Name of each cue in rows: the tracker setting with its weight.
_CUES = {"det": "detection", "iou": "iou", "cat": "category"}
_SIDE = 32  # pixels of the canvas for testing trackers


class Parts(NamedTuple):
    """Components shared by the rows."""

    detector: Detector
    trackers: Mapping[str, Build]  # by name
    variables: dict  # the system's variables, on the device
    test: TestSettings
    classes: int
    run_id: str  # identifies what the detections depend on


def tracker_rows(parts: Parts, names: Iterable[str]) -> list[Row]:
    """Returns a row per tracker, with its settings from `test.trackers`.

    A tracker that cannot be built, or lacks its parameters, has no `predict`.
    """
    return [_row(parts, TRACKERS, name, name, set()) for name in names]


def cue_rows(parts: Parts, name: str) -> list[Row]:
    """Returns a row per subset of the three cues, in Table 2 order; others weigh 0.

    Args:
      parts: components of the rows; see `Parts`.
      name: name of the tracker; its settings weigh the cues.
    """
    return [
        _row(parts, CUES, cue_name(kept), name, _CUES.keys() - set(kept))
        for kept in cue_choices()
    ]


def cue_choices() -> list[tuple[str, ...]]:
    """Returns all subsets of cues: none first, all last, detection changes fastest."""
    choices = itertools.product((False, True), repeat=len(_CUES))
    return [
        tuple(cue for cue, on in zip(_CUES, reversed(chosen), strict=True) if on)
        for chosen in choices
    ]


def cue_name(cues: tuple[str, ...]) -> str:
    """Returns the name of the row and its folder."""
    return "_".join(("cues", *(cues or ("none",))))


def oracle_rows(parts: Parts, name: str, rule: OracleRule) -> list[Row]:
    """Returns the rows of the image oracle and of the identity oracle.

    Args:
      parts: components of the rows; see `Parts`.
      name: name of the tracker for the image oracle.
      rule: for matching detections to objects.
    """
    classes, top = parts.classes, parts.test.top

    def by_truth(seen: VideoInputs) -> VideoResult:
        return identify(
            seen.detections,
            seen.truth,
            seen.piece,
            rule=rule,
            classes=classes,
            top=top,
        )

    run_id = _digest(parts, "identity", rule._asdict())
    known = Row(ORACLES, "oracle_identity", run_id, by_truth)
    why = _problem(parts, name)
    if why:
        return [Row(ORACLES, "oracle_image", "", missing=why), known]
    settings = _settings(parts, name)
    perfect = make_perfect(
        parts.detector, parts.variables, classes=classes, chunk=parts.test.chunk
    )
    link = _link(parts, name, settings)

    def perfectly_seen(seen: VideoInputs) -> VideoResult:
        return link(seen.piece, perfect(seen.piece, seen.truth))

    run_id = _digest(parts, f"image {name}", settings)
    return [Row(ORACLES, "oracle_image", run_id, perfectly_seen), known]


def varied_row(
    name: str, run_id: str, system: System, variables: dict, test: SystemTest
) -> Row:
    """Returns the row of a system with its own settings.

    Args:
      name: name of the row.
      run_id: identifies what its result depends on.
      system: built with the settings.
      variables: variables of the system, on the device.
      test: test settings of the row.
    """
    stream = make_stream(system, variables, test)

    def run(frames: Iterator[np.ndarray], video: Video) -> VideoResult:
        size = (video.height, video.width)
        return collect(stream(frames), test.top, video.length, size)

    return Row(VARIED, name, run_id, run=run)


def _row(parts: Parts, table: str, row: str, name: str, off: Collection[str]) -> Row:
    """Returns the row of a tracker on the detections, with these cues off."""
    why = _problem(parts, name)
    if why:
        return Row(table, row, "", missing=why)
    without = {_CUES[cue]: 0.0 for cue in off}
    settings = dataclasses.replace(_settings(parts, name), **without)
    link = _link(parts, name, settings)
    run_id = _digest(parts, name, settings)
    return Row(table, row, run_id, lambda seen: link(seen.piece, seen.detections))


def _link(parts: Parts, name: str, settings: Any) -> LinkVideo:
    test = parts.test
    rules = LinkRules(test.tracks, parts.classes, test.top, test.chunk)
    tracker = _tracker(parts, name, settings)
    return make_link(tracker, parts.detector, parts.variables, rules)


def _problem(parts: Parts, name: str) -> str:
    """Explains why a tracker cannot run on this model; empty if it can."""
    try:
        settings = _settings(parts, name)
    except ValueError as error:
        return str(error)
    tracker = _tracker(parts, name, settings)
    try:
        _try(parts, tracker)
    except (ValueError, FlaxError) as error:
        return " ".join(str(error).split())
    return ""


def _settings(parts: Parts, name: str) -> Any:
    """Returns the settings of a tracker in the config.

    Raises:
      ValueError: there is no such tracker.
    """
    if name not in parts.trackers:
        known = ", ".join(sorted(parts.trackers))
        raise ValueError(f"no such tracker for this model; there are {known}")
    return getattr(parts.test.trackers, name)


def _tracker(parts: Parts, name: str, settings: Any) -> Tracker:
    return parts.trackers[name](settings, parts.test.tracks)


def _try(parts: Parts, tracker: Tracker) -> None:
    """Traces a tracker on an empty frame, to detect missing inputs."""
    images = np.zeros((1, _SIDE, _SIDE, 3), np.uint8)
    clip = Clip(images, np.ones(1, bool), np.full(2, _SIDE, np.int32))
    clip = jax.tree.map(jnp.asarray, clip)
    found, detector = parts.detector.empty(1), parts.detector

    def track(variables: dict) -> Any:
        features = None
        if tracker.reads_features:
            features = detector.features(variables, clip.images, clip.size)
        state = tracker.start(clip, found)
        return tracker.track(variables, state, clip, found, features)

    jax.eval_shape(track, parts.variables)


def _digest(parts: Parts, name: str, settings: Any) -> str:
    """Returns a digest of everything that a row depends on."""
    test = parts.test
    what = [parts.run_id, name, to_dict(settings), test.tracks, test.top, test.videos]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
