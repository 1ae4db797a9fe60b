"""Errors of `python -m tests.golden.check` for incomplete or damaged cases."""

import json
import shutil
import types

import numpy as np
import pytest

from tests.golden import check, iai_losses, mask_rcnn, track_head
from tests.golden.cases import FOLDER, Case, CaseError, load

CASE = "deepsort"


@pytest.fixture
def copied(tmp_path):
    for ending in ("json", "npz"):
        shutil.copy(FOLDER / f"{CASE}.{ending}", tmp_path)
    return tmp_path / f"{CASE}.json"


def rewrite(path, change):
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def said(path, capsys) -> str:
    assert check.main(str(path)) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.count("\n") == 1
    assert str(path.parent) in error
    return error


def test_an_unknown_case_names_the_known_ones(copied, capsys):
    rewrite(copied, lambda manifest: manifest.update(case="yolact_r18"))
    error = said(copied, capsys)
    assert "got 'yolact_r18'" in error
    for name in check.COMPARISONS:
        assert name in error


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_a_missing_file(ending, copied, capsys):
    copied.with_suffix(f".{ending}").unlink()
    assert "No such file" in said(copied, capsys)


@pytest.mark.parametrize("ending", ["json", "npz"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"[]", b"PK\x03\x04cut"])
def test_a_damaged_file(ending, content, copied, capsys):
    copied.with_suffix(f".{ending}").write_bytes(content)
    assert f"{CASE}.{ending}: expected" in said(copied, capsys)


def test_damaged_bytes_of_an_array(copied, capsys):
    stored = copied.with_suffix(".npz")
    content = bytearray(stored.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    stored.write_bytes(bytes(content))
    assert f"{CASE}.npz: expected" in said(copied, capsys)


@pytest.mark.parametrize(
    "name", ["arrays", "case", "parameters", "seed", "settings", "tolerance"]
)
def test_a_manifest_without_an_entry(name, copied, capsys):
    rewrite(copied, lambda manifest: manifest.pop(name))
    assert f"expected an entry '{name}', got none" in said(copied, capsys)


def test_a_setting_that_a_comparison_needs(copied, capsys):
    rewrite(copied, lambda manifest: manifest["settings"].pop("n_init"))
    error = said(copied, capsys)
    assert "settings: expected an entry 'n_init', got none" in error


def test_arrays_that_the_manifest_does_not_list_as_they_are(copied, capsys):
    def change(manifest):
        manifest["arrays"]["metric/a"]["shape"] = [1, 2]

    rewrite(copied, change)
    assert "metric/a: expected shape [1, 2], got" in said(copied, capsys)
    rewrite(copied, lambda manifest: manifest["arrays"].pop("metric/a"))
    assert "expected an entry 'metric/a', got none" in said(copied, capsys)


def test_what_is_not_built_or_of_another_shape_has_a_line(capsys):
    case = load(CASE)
    results = {name: case.arrays[name] for name in case.outputs()}
    del results["iou/output"]
    results["metric/nn_cosine"] = np.zeros((2, 2))
    results["metric/nn_euclidean"] = results["metric/nn_euclidean"] * np.nan
    assert check.print_table(case, results) == 3
    lines = capsys.readouterr().out.splitlines()
    bad = {line.split()[0]: line for line in lines[:-1] if not line.endswith("ok")}
    assert bad["iou/output"].endswith("NOT BUILT")
    assert "FAILS: shape (2, 2), not" in bad["metric/nn_cosine"]
    assert bad["metric/nn_euclidean"].endswith("FAILS")
    assert lines[-1] == "155 arrays, 2 failures, 1 not built"


def test_an_integer_in_a_subsample_takes_one_index():
    case = load("maskrcnn_r50_fpn_torchvision")
    full = np.zeros((20, 1, 96, 160))
    assert case.subsample("detections/0/masks", full).shape == (8, 48, 80)


def test_equal_places_of_nan_are_equal():
    case = load("ops")
    stored = case.arrays["box_iou/output"]
    assert case.error("box_iou/output", stored)[0] == 0
    assert case.error("box_iou/output", np.nan_to_num(stored))[0] == np.inf


def test_a_case_error_is_raised_for_a_folder(tmp_path):
    with pytest.raises(CaseError, match=str(tmp_path)):
        Case(tmp_path)


def with_notes(name: str, *notes: str) -> Case:
    case = Case(FOLDER / f"{name}.json")
    case.manifest["notes"] = list(notes)
    return case


def test_pairs_of_frames_come_from_the_notes():
    case = with_notes("masktrack_track_head", "x0 = 2, x1 = 0 1 5 and r0 = 1 2, r1 = 3")
    pairs = track_head.pairs_of_case(case)
    assert pairs == ([[2], [0, 1, 5]], [[1, 2], [3]])
    split = pairs.split(np.arange(1, 5))
    np.testing.assert_array_equal(split, [[1, 0, 0], [2, 3, 4]])


def test_the_number_of_clips_comes_from_the_notes():
    case = with_notes("iai_condinst_r50", "eval mode, 5 frames x batch 3.")
    shape, count = (15, 3, 8, 8), 15
    case.arrays = {"train/image": np.zeros(shape, np.float32)}
    for i in range(count):
        there = int(i > 0)  # no object in the first frame
        case.arrays |= {
            f"train/{i}/masks": np.ones((there, 8, 8), np.uint8),
            f"train/{i}/boxes": np.ones((there, 4), np.float32),
            f"train/{i}/labels": np.ones(there, np.int64),
            f"train/{i}/ids": np.zeros(there, np.int64),
        }
    images, batch = iai_losses.batch_of_case(case)
    assert images.shape == (3, 5, 8, 8, 3)
    assert batch.present[:, 0, 0].tolist() == [False, True, True]
    case.manifest["notes"] = []
    with pytest.raises(CaseError, match="notes: expected 'N frames x batch N', got"):
        iai_losses.batch_of_case(case)


def test_images_may_have_other_numbers_of_given_regions():
    arrays = {f"given_rois/boxes/{i}": np.ones((n, 4)) for i, n in enumerate((2, 3))}
    case = types.SimpleNamespace(arrays=arrays)
    boxes, valid = mask_rcnn.given_regions(case, 2)
    assert boxes.shape == (2, 3, 4)
    assert valid.tolist() == [[True, True, False], [True, True, True]]
