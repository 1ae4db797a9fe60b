import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from data_pipeline.datasets.dataset import VideoTruth
from data_pipeline.datasets.first_videos import FirstVideos
from data_pipeline.moving_shapes.dataset import MovingShapes
from vis_jax.compare.detections import (
    VideoDetections,
    cached,
    load,
    read_whole,
    save,
)
from vis_jax.compare.link import LinkRules, make_link, pad
from vis_jax.compare.oracles import (
    OracleRule,
    check_rule,
    identify,
    make_perfect,
    match,
    objects,
)
from vis_jax.compare.rows import (
    Parts,
    cue_choices,
    cue_rows,
    oracle_rows,
    tracker_rows,
)
from vis_jax.compare.table import Row, VideoInputs, compare
from vis_jax.evaluate.loop import video_frames
from vis_jax.evaluate.masks import run_lengths
from vis_jax.structures import Detections
from vis_jax.systems.detect_then_track import (
    Appearance,
    Detector,
    TestSettings,
    start_and_step,
)
from vis_jax.trackers import TRACKERS
from vis_jax.trackers.tracker import Tracked, Tracker

CLASSES, WIDTH = 8, 8  # kinds of shapes; length of an embedding
TEST = TestSettings(short_side=64, frame_buckets=(8,), chunk=4, top=20, tracks=20)
MASKS = OracleRule("mask", 0.5)


def detector_of(dataset, index) -> Detector:
    """Nothing is detected; boxes of the truth get the embedding of their track."""
    table = dataset.truth(index).boxes * 64 / 48  # canvas pixels

    def describe(variables, features, boxes):
        far = jnp.abs(boxes[:, :, None, None] - jnp.asarray(table)[None, None])
        track = far.sum(-1).min(-1).argmin(-1)
        # Different tracks have a negative product.
        embeds = 20 * (jax.nn.one_hot(track, WIDTH) - 1 / WIDTH)
        return Appearance(embeds, embeds)

    def empty(frames):
        lead = (frames, 1)
        return Detections(
            jnp.zeros((*lead, 4)), jnp.zeros(lead), jnp.full(lead, CLASSES),
            jnp.zeros(lead, bool), jnp.zeros((*lead, WIDTH)), jnp.zeros((*lead, WIDTH)),
            jnp.zeros((*lead, 2, 2)),
        )  # fmt: skip

    def features(variables, images, size):
        return images

    def detect(variables, features, size):
        return empty(features.shape[0])

    return Detector(lambda rng, batch: {}, features, detect, describe, empty)


@pytest.fixture(scope="module")
def dataset():
    """Objects cross, and not all are in every frame."""
    return MovingShapes(
        "val", seed=14, num_videos=2, height=48, width=72, length=6, difficulty="medium"
    )


@pytest.fixture(scope="module")
def seen(dataset) -> VideoInputs:
    """The first video, detected perfectly."""
    piece = read_whole(video_frames(dataset, 0), TEST)
    perfect = make_perfect(detector_of(dataset, 0), {}, classes=CLASSES, chunk=4)
    truth = dataset.truth(0)
    assert not truth.present.all()
    return VideoInputs(piece, perfect(piece, truth), truth)


@pytest.fixture(scope="module")
def link(dataset):
    tracker = TRACKERS["mask_track"](TEST.trackers.mask_track, TEST.tracks)
    rules = LinkRules(TEST.tracks, CLASSES, TEST.top, TEST.chunk)
    return make_link(tracker, detector_of(dataset, 0), {}, rules)


def change(detections, **values) -> VideoDetections:
    return detections._replace(found=detections.found._replace(**values))


def true_tracks(truth) -> set:
    """The tracks that can be seen, as `tracks` gives them."""
    return {
        (label, tuple(rle["counts"] if rle else None for rle in track))
        for label, track in zip(truth.labels, truth.segmentations, strict=True)
        if any(track)
    }


def tracks(found) -> set:
    """Label and run lengths of every track; None for an empty mask."""
    (empty,) = run_lengths(np.zeros((1, 72, 48), np.uint8))
    return {
        (label, tuple(None if rle == empty else rle["counts"] for rle in track))
        for label, track in zip(found.labels, found.segmentations, strict=True)
    }


def by_truth(seen, detections, rule=MASKS):
    return identify(
        detections, seen.truth, seen.piece, rule=rule, classes=CLASSES, top=20
    )


def test_perfect_detections_and_embeddings_give_the_truth(seen, link):
    found = link(seen.piece, seen.detections)
    assert tracks(found) == true_tracks(seen.truth)
    np.testing.assert_array_equal(found.scores, 1)


@pytest.mark.parametrize("rule", [MASKS, OracleRule("box", 0.9)])
def test_the_truth_names_perfect_detections(seen, rule):
    found = by_truth(seen, seen.detections, rule)
    assert tracks(found) == true_tracks(seen.truth)


def test_an_identity_that_is_switched_is_repaired(seen, link):
    embeds = np.array(seen.detections.found.embeds)
    embeds[3:, [0, 1]] = embeds[3:, [1, 0]]
    switched = change(seen.detections, embeds=embeds)
    assert tracks(link(seen.piece, switched)) != true_tracks(seen.truth)
    assert tracks(by_truth(seen, switched)) == true_tracks(seen.truth)


def test_a_detection_that_is_missed_or_wrong_stays_so(seen):
    """One is missed, one lies elsewhere, one has a class and score of its own."""
    found, slots = seen.detections.found, objects(seen.truth)
    valid, labels = np.array(found.valid), np.array(found.labels)
    scores, masks = np.array(found.scores), [list(row) for row in seen.detections.masks]
    valid[0, 0] = False
    masks[1][0] = masks[1][1]  # beside that of the other, which has a better score
    scores[1, 0], scores[2, 0], labels[2, 0] = 0.3, 0.5, CLASSES - 1
    damaged = change(seen.detections, valid=valid, labels=labels, scores=scores)
    result = by_truth(seen, damaged._replace(masks=masks))
    expected = [list(track) for track in seen.truth.segmentations]
    for t in (0, 1):
        expected[slots[t, 0]][t] = None
    truth = seen.truth._replace(segmentations=tuple(map(tuple, expected)))
    assert tracks(result) == true_tracks(truth)
    counted = scores[2:6][slots[2:6] == slots[0, 0]]
    assert result.scores.min() == pytest.approx(counted.mean())


def test_each_object_is_taken_once_in_the_order_of_scores():
    overlaps = np.array([[0.9, 0.6], [0.8, 0.0], [0.7, 0.55], [0.0, 0.0]])
    scores = np.array([0.5, 0.9, 0.4, 1.0])
    # The second takes the first object, so that the first takes the other.
    np.testing.assert_array_equal(match(overlaps, scores, 0.5), [1, 0, -1, -1])
    np.testing.assert_array_equal(match(overlaps, scores, 0.7), [-1, 0, -1, -1])
    assert match(overlaps[:, :0], scores, 0.5).tolist() == [-1] * 4
    for rule in (OracleRule("tube", 0.5), OracleRule("box", 0.0)):
        with pytest.raises(ValueError, match="oracle_(iou|least): expected"):
            check_rule(rule)


def test_a_video_without_objects_and_one_with_crowds(seen):
    truth = seen.truth
    nothing = VideoTruth(*(array[:0] for array in truth))
    assert not by_truth(seen._replace(truth=nothing), seen.detections).labels.size
    assert (objects(nothing) == -1).all()
    crowd = truth._replace(crowd=np.ones_like(truth.crowd))
    assert (objects(crowd) == -1).all()
    assert not by_truth(seen._replace(truth=crowd), seen.detections).labels.size
    # As many slots as the fullest frame needs, in tens.
    many = VideoTruth(*(np.repeat(np.asarray(x, object), 9, 0) for x in truth))
    many = many._replace(present=np.ones((len(many.labels), 6), bool), crowd=many.crowd)
    count = -(-len(many.labels) // 10) * 10
    crowded = many._replace(crowd=np.zeros(len(many.labels), bool))
    assert objects(crowded).shape == (6, count)


def test_masks_of_the_tracker_itself_replace_those_detected(dataset, seen):
    """The mask fills the right half of the canvas, in the first frame only."""

    def track(variables, state, clip, detections, features=None):
        shape = detections.valid.shape
        ids = jnp.zeros(shape, jnp.int32).at[0, 0].set(1)
        half = jnp.asarray([-1.0, 1.0])
        shown = detections._replace(
            boxes=jnp.broadcast_to(jnp.asarray([0.0, 0.0, 96.0, 64.0]), (*shape, 4)),
            mask_logits=jnp.broadcast_to(half[None], (*shape, 1, 2)),
        )
        return state, Tracked(ids, jnp.zeros((), jnp.int32), shown)

    tracker = Tracker(lambda clip, detections: (), track, draws=True)
    rules = LinkRules(slots=2, classes=CLASSES, top=5, chunk=4)
    run = make_link(tracker, detector_of(dataset, 0), {}, rules)
    found = run(seen.piece, seen.detections)
    expected = np.zeros((48, 72), bool)
    expected[:, 36:] = True
    (masks,) = found.segmentations
    np.testing.assert_array_equal(coco_mask.decode(masks[0]), expected)
    assert not any(coco_mask.decode(rle).any() for rle in masks[1:])


def test_a_tracker_that_reads_features_gets_them_in_both_ways(dataset, seen):
    """The tracker follows the first detection of frames with an even first pixel."""

    def track(variables, state, clip, detections, features=None):
        even = features[:, 0, 0, 0] % 2 == 0  # here features are the images
        first = jnp.arange(detections.valid.shape[1]) == 0
        ids = jnp.where(even[:, None] & first[None], 1, 0).astype(jnp.int32)
        return state, Tracked(ids, jnp.zeros((), jnp.int32))

    tracker = Tracker(lambda clip, detections: (), track, reads_features=True)
    found = pad(seen.detections.found, 8, CLASSES)
    detector = detector_of(dataset, 0)._replace(detect=lambda *_: found)
    start, step = start_and_step(detector, tracker, slots=1, classes=CLASSES, chunk=8)
    clip = seen.piece.clip
    _, said = jax.jit(step)({}, start(clip), clip)
    even = (clip.images[:, 0, 0, 0] % 2 == 0) & clip.frame_valid
    assert 0 < even.sum() < 6
    np.testing.assert_array_equal(said.slots[:, 0] == 0, even & found.valid[:, 0])
    run = make_link(tracker, detector, {}, LinkRules(1, CLASSES, 5, 4))
    (masks,) = run(seen.piece, seen.detections).segmentations
    areas = [coco_mask.area(rle) > 0 for rle in masks]
    np.testing.assert_array_equal(areas, (said.slots[:, 0] == 0)[:6])


def test_masks_of_its_own_and_what_a_tracker_says_of_them_agree(dataset, seen):
    def track(variables, state, clip, detections, features=None):
        ids = jnp.zeros(detections.valid.shape, jnp.int32)
        return state, Tracked(ids, jnp.zeros((), jnp.int32), detections)

    tracker = Tracker(lambda clip, detections: (), track)
    run = make_link(tracker, detector_of(dataset, 0), {}, LinkRules(2, CLASSES, 5, 4))
    with pytest.raises(
        ValueError, match="masks of its own if and only if draws, which is F"
    ):
        run(seen.piece, seen.detections)


def test_detections_on_disk_are_those_that_were_written(seen, tmp_path):
    path = tmp_path / "detections" / "1.npz"
    assert load(path, "a") is None
    save(path, "a", seen.detections)
    found = load(path, "a")
    assert found.masks == [list(row) for row in seen.detections.masks]
    for ours, theirs in zip(found.found, seen.detections.found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert load(path, "b") is None
    assert [file.name for file in path.parent.iterdir()] == ["1.npz"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"1\.npz: expected detections, got a damaged"):
        cached(path, "a", lambda: seen.detections)


def test_a_run_goes_on_and_another_row_needs_no_detector(dataset, seen, tmp_path, link):
    asked = []

    def find(piece):
        asked.append("find")
        return seen.detections._replace(masks=seen.detections.masks)

    def row(name, run_id="1", fails_at=99):
        def predict(one):
            asked.append(name)
            if asked.count(name) > fails_at:
                raise KeyboardInterrupt
            return link(one.piece, one.detections)

        return Row("trackers", name, run_id, predict)

    def run(*rows, run_id="detector"):
        asked.clear()
        return compare(
            dataset, rows, tmp_path, find=find, test=TEST, run_id=run_id, progress=False
        )

    with pytest.raises(KeyboardInterrupt):
        run(row("a", fails_at=1))
    assert asked == ["find", "a", "find", "a"]
    missing = Row("trackers", "b", "", missing="it has no network")
    report = run(row("a"), missing)
    assert asked == ["a"]
    assert report == json.loads((tmp_path / "compare.json").read_text())
    assert report["tables"]["trackers"]["b"] == {"missing": "it has no network"}
    first = report["tables"]["trackers"]["a"]
    assert {"AP", "AP50", "AP75", "AR1", "AR10", "IDF1", "HOTA", "IDSW"} <= set(first)
    again = run(row("a"), row("c"))
    assert asked == ["c", "c"]
    a, c = (again["tables"]["trackers"][name] for name in "ac")
    assert a == first == c
    for name in "ac":
        files = sorted(path.name for path in (tmp_path / name).iterdir())
        assert files == ["results.json", "scores.json", "truth.json"]
    run(row("a", run_id="2"))
    assert asked == ["a", "a"]
    run(row("a"), run_id="another detector")
    assert asked == ["find", "a"] * 2


def test_the_image_oracle_needs_no_detections(dataset, tmp_path):
    parts = Parts(detector_of(dataset, 0), TRACKERS, {}, TEST, CLASSES, "detector")
    rows = oracle_rows(parts, "mask_track", MASKS)

    def find(piece):
        found = jax.tree.map(np.asarray, parts.detector.empty(piece.rows))
        return VideoDetections(found, [[None]] * piece.rows)

    report = compare(
        FirstVideos(dataset, 1),
        rows,
        tmp_path,
        find=find,
        test=TEST,
        run_id="detector",
        progress=False,
    )
    table = report["tables"]["oracles"]
    assert list(table) == ["oracle_image", "oracle_identity"]
    assert table["oracle_image"]["AP"] == pytest.approx(1)
    assert table["oracle_identity"]["AP"] == 0


def test_a_row_that_cannot_be_run_says_why(dataset):
    parts = Parts(detector_of(dataset, 0), TRACKERS, {}, TEST, CLASSES, "detector")
    unknown, known = tracker_rows(parts, ["osmn", "seq"])
    assert (unknown.predict, known.missing) == (None, "")
    assert unknown.missing.startswith("no such tracker for this model; there are deep")
    empty = parts.detector.empty

    def no_embeddings(frames) -> Detections:
        return empty(frames)._replace(embeds=jnp.zeros((frames, 1, 0)))

    without = parts._replace(detector=parts.detector._replace(empty=no_embeddings))
    rows = cue_rows(without, "mask_track")
    assert len(rows) == 8
    assert all("detections without embeddings" in row.missing for row in rows)
    image, identity = oracle_rows(without, "mask_track", MASKS)
    assert (image.predict, identity.missing) == (None, "")


def test_all_choices_of_the_cues_in_the_order_of_the_paper(dataset):
    assert cue_choices() == [
        (), ("det",), ("iou",), ("det", "iou"), ("cat",), ("det", "cat"),
        ("iou", "cat"), ("det", "iou", "cat"),
    ]  # fmt: skip
    built = []

    def build(settings, slots):
        built.append((settings.detection, settings.iou, settings.category))
        return TRACKERS["mask_track"](settings, slots)

    parts = Parts(
        detector_of(dataset, 0), {"mask_track": build}, {}, TEST, CLASSES, "detector"
    )
    rows = cue_rows(parts, "mask_track")
    assert [row.name for row in rows[:4]] == [
        "cues_none", "cues_det", "cues_iou", "cues_det_iou",
    ]  # fmt: skip
    assert len({row.run_id for row in rows}) == 8
    assert list(dict.fromkeys(built[1::2])) == [
        (0, 0, 0), (1, 0, 0), (0, 2, 0), (1, 2, 0),
        (0, 0, 10), (1, 0, 10), (0, 2, 10), (1, 2, 10),
    ]  # fmt: skip
