import json

import jax
import numpy as np
import pytest

from tests.command_line import call, error_of
from tests.recipes import recipe
from vis_jax import systems
from vis_jax.commands import compare_tables
from vis_jax.commands.compare_tables import format_table
from vis_jax.commands.parts import build_system
from vis_jax.commands.vary import variants
from vis_jax.compare.rows import cue_choices, cue_name
from vis_jax.trackers import TRACKERS
from vis_jax.training.checkpoint import save_variables
from vis_jax.training.dry_run import batch_shapes

CONFIG = "configs/mask_track_rcnn_shapes.py:debug"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Flags that choose a model that knows nothing, and shows all it finds."""
    config = recipe("mask_track_rcnn_shapes")
    batch = batch_shapes(B=1, T=1, M=1, H=64, W=64)
    shapes = jax.eval_shape(build_system(config).init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes
    )
    path = tmp_path_factory.mktemp("compare") / "weights"
    save_variables(str(path), variables)
    return ("--config", CONFIG, "--checkpoint", path, "--config.test.score=0.0")


def test_a_tracker_of_a_comparison_gives_what_evaluating_it_gives(
    words, tmp_path, monkeypatch
):
    one = {"mask_track": TRACKERS["mask_track"]}  # others take long to compile
    method = systems.SYSTEMS["mask_track_rcnn"]._replace(trackers=lambda config: one)
    monkeypatch.setitem(systems.SYSTEMS, "mask_track_rcnn", method)
    output = tmp_path / "out"
    compared = call("compare", *words, "--output", output, "--tables=1,3")
    assert compared.code == 0, compared
    alone = call("evaluate", *words, "--output", tmp_path / "alone")
    assert alone.code == 0, alone
    ours, theirs = (
        json.loads((folder / "results.json").read_text())
        for folder in (output / "mask_track", tmp_path / "alone")
    )
    assert ours
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.pop("score") == pytest.approx(other.pop("score"), rel=1e-4)
        assert one == other

    tables = json.loads((output / "compare.json").read_text())["tables"]
    assert list(tables) == ["trackers", "oracles"]
    rows = tables["trackers"]
    assert list(rows) == list(compare_tables.TRACKERS.paper)
    ran = {name for name, row in rows.items() if "missing" not in row}
    assert ran == {"mask_track"}
    assert tables["oracles"]["oracle_image"]["AP"] > 0.5
    lines = compared.out.splitlines()
    (row,) = [line.split() for line in lines if line.startswith("mask_track ")]
    assert row[-5:] == ["30.3", "51.6", "32.2", "30.6", "35.5"]
    for name in rows.keys() - ran:
        assert any(line.startswith(f"{name}: ") for line in lines)
    assert {path.name for path in output.iterdir()} == {
        *ran, "oracle_image", "oracle_identity", "detections", "compare.json",
    }  # fmt: skip


def test_a_table_shows_the_paper_and_why_a_row_is_missing():
    numbers = dict(AP=0.5, AP50=1.0, AP75=None, AR1=0.25, AR10=0.3)
    rows = {
        "iou": numbers | dict(IDF1=0.125, HOTA=0.2, IDSW=3),
        "osmn": {"missing": "no network"},
        "mine": numbers,
    }
    text = format_table(compare_tables.TRACKERS, rows).splitlines()
    assert [" ".join(line.split()) for line in text[2:]] == [
        "paper paper paper paper paper",
        "AP AP50 AP75 AR1 AR10 IDF1 HOTA IDSW AP AP50 AP75 AR1 AR10",
        "iou 50.0 100.0 - 25.0 30.0 12.5 20.0 3 23.6 39.2 25.5 26.2 30.9",
        "osmn - - - - - - - - 27.5 45.1 29.1 28.6 33.1",
        "mine 50.0 100.0 - 25.0 30.0 - - - - - - - -",
        "osmn: no network",
    ]
    assert len({len(line) for line in text[2:7]}) == 1


def test_the_cues_have_the_rows_of_the_paper():
    assert list(compare_tables.CUES.paper) == [cue_name(cues) for cues in cue_choices()]


def test_a_setting_that_varies_gives_what_evaluating_it_gives(words, tmp_path):
    output = tmp_path / "out"
    few = ("--config.test.videos=1", "--config.test.tracker=iou")
    vary = ("--vary=test.objects=1,4", "--vary", "config.test.trackers.iou.min_iou=0.9")
    compared = call("compare", *words, *few, "--output", output, *vary)
    assert compared.code == 0, compared
    tables = json.loads((output / "compare.json").read_text())["tables"]
    names = ["objects=1", "objects=4", "trackers.iou.min_iou=0.9"]
    assert list(tables) == ["varied"]
    assert list(tables["varied"]) == names
    assert all(f"\n{name} " in compared.out for name in names)
    changed = ("--config.test.trackers.iou.min_iou=0.9", "--output", tmp_path / "alone")
    alone = call("evaluate", *words, *few, *changed)
    assert alone.code == 0, alone
    results = [(output / name / "results.json").read_bytes() for name in names]
    assert results[2] == (tmp_path / "alone" / "results.json").read_bytes()
    assert len(set(results)) == 3


def test_a_setting_that_cannot_vary_is_named(words, tmp_path):
    out = ("--output", tmp_path / "out")
    for given, expected in (
        (
            "short_side=2",
            "--vary: expected test.FIELD=VALUE,VALUE,.., got short_side=2",
        ),
        ("test.top", "--vary: expected test.FIELD=VALUE,VALUE,.., got test.top"),
        ("test.split=train", "--vary: expected a setting that all videos can have"),
        ("test.sort=1", "test.sort: no such field"),
        ("test.score=0.5,2", "test.score: expected float, 0 .. 1, got 2"),
    ):
        assert error_of("compare", *words, *out, "--vary", given).startswith(expected)
    # A tuple in brackets is one value.
    config = recipe("ifr_shapes", "debug", {"test.short_side": 96})
    given = ["test.tta=(64, 96),()", "test.mode=video"]
    assert [one.name for one in variants(config, given)] == [
        "tta=(64,96)", "tta=()", "mode=video",
    ]  # fmt: skip
    assert variants(config, given)[0].config.test.tta == (64, 96)


def test_mistakes_are_named_before_any_work(words, tmp_path):
    out = ("--output", tmp_path / "out")
    ifr = error_of("compare", "--config", "configs/ifr_shapes.py:debug", *out)
    assert ifr.startswith("system: expected one of [") and "'mask_track_rcnn'" in ifr
    assert ifr.endswith("got 'ifr'")
    assert "expected some of 1,2,3, got 4" in error_of("compare", "--tables=4", *words)
    wrong = error_of("compare", *words, *out, "--oracle_iou=tube")
    assert wrong == "--oracle_iou: expected one of ('mask', 'box'), got 'tube'"
    wrong = error_of("compare", *words, *out, "--oracle_least=0")
    assert wrong == "--oracle_least: expected above 0 and at most 1, got 0.0"
    wrong = error_of("compare", *words, "--output=gs://bucket/out")
    assert wrong == "--output: expected a path on a disk, got gs://bucket/out"
    assert "--output: expected a folder" in error_of("compare", *words)
    assert not (tmp_path / "out").exists()
