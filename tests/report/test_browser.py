"""The page as a reader uses it; skipped where there is no Chromium.

With VIS_JAX_PICTURES=docs in the environment the pictures of the pages are made anew.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.browser import browser
from tests.command_line import call
from tests.report.scene import HOSTILE, write_scene
from vis_jax.report.predicted import PredictedPage
from vis_jax.results.frame import FrameResult, LiveTracks
from vis_jax.scoring import score


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as one:
        one.resize(1360, 1000)
        yield one


def pixel(window, pane, x, y):
    """Red, green, blue of a picture, at shares of its width and height."""
    script = """
        const canvas = document.querySelector(`[data-pane=${arguments[0]}]`);
        const [x, y] = [arguments[1] * canvas.width, arguments[2] * canvas.height];
        return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
    """
    return window.run(script, pane, x, y)


LEFT_AT, RIGHT_AT = (0.25, 0.6), (0.75, 0.6)


def test_frames_tracks_classes_and_switches(window, tmp_path):
    truth, results, frames = write_scene(tmp_path)
    score(truth, results, report_path=tmp_path / "out.html", frames=frames)
    window.open(tmp_path / "out.html")
    assert window.text("#frame-label") == "frame 0 of 4"
    assert window.text("#video-name") == HOSTILE  # the worst one

    # Pictures arrive a moment later; frame 4 has a grey of 200.
    window.press("end")
    assert window.text("#frame-label") == "frame 4 of 4"
    grey = wait_for(lambda: pixel(window, "truth", 0.5, 0.95), lambda c: min(c) > 170)
    assert max(grey) - min(grey) < 6

    window.press("left")
    assert window.text("#frame-label") == "frame 3 of 4"
    # After the switch prediction 1 is on the right: sides have changed colours.
    truth_left = pixel(window, "truth", *LEFT_AT)
    assert pixel(window, "prediction", *RIGHT_AT) == truth_left
    assert pixel(window, "prediction", *LEFT_AT) != truth_left

    window.click("[data-toggle=truth-0]")
    assert window.attribute("[data-toggle=truth-0]", "aria-pressed") == "false"
    bare = pixel(window, "truth", *LEFT_AT)
    assert max(bare) - min(bare) < 6 and bare != truth_left
    window.click("[data-toggle=truth-0]")
    assert pixel(window, "truth", *LEFT_AT) == truth_left
    window.click(".chip[data-class='0']")
    assert pixel(window, "truth", *LEFT_AT) == bare
    window.click(".chip[data-class='0']")

    window.click_at("[data-line=prediction-0] .strip", 0.1)
    assert window.text("#frame-label") == "frame 0 of 4"
    window.click("[data-line=truth-1] .switch")
    assert window.text("#frame-label") == "frame 3 of 4"
    window.run("document.activeElement.blur()")
    window.press("space")
    wait_for(lambda: window.text("#frame-label"), lambda text: text == "frame 4 of 4")
    window.click(".video-row[data-video='1']")
    assert window.text("#video-name") == "clip1"
    for part in ("#errors .bar-row", "#oracles .bar-row", "#classes .bar-row"):
        assert window.run(f"return document.querySelectorAll('{part}').length") >= 2
    assert window.run("return document.querySelectorAll('#curves .curve-0').length")
    check_harmless(window)


def check_harmless(window):
    """No script of a name ran, nothing was loaded, nothing went wrong."""
    assert window.run("return [typeof window.hacked, document.images.length]") == [
        "undefined",
        0,
    ]
    loaded = window.run(
        "return performance.getEntriesByType('resource').map((one) => one.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
    assert window.messages() == []


def shot(window, path):
    """A screenshot with few colours, for a small file."""
    window.screenshot(path)
    image = Image.open(path).convert("RGB").quantize(160, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    assert path.stat().st_size <= 150_000


def imperfect(truth):
    """Predictions with errors of several kinds, made from the truth."""
    results = []
    for n, track in enumerate(truth["annotations"]):
        entry = {key: track[key] for key in ("video_id", "category_id")}
        entry["score"] = 0.95 - 0.04 * (n % 12)
        masks = [rle and moved(rle, 2 + n % 3) for rle in track["segmentations"]]
        if n % 5 == 3:
            continue  # missed
        if n % 7 == 5:
            entry["category_id"] = entry["category_id"] % 3 + 1
        gone = [None] * len(masks)
        cut = len(masks) * 3 // 5 if n % 3 == 0 else len(masks)
        # Another prediction goes on where this one ends: an identity switch.
        parts = [masks[:cut] + gone[cut:], gone[:cut] + masks[cut:]]
        results += [entry | {"segmentations": part} for part in parts if any(part)]
    return results


def moved(rle, pixels):
    """The mask some pixels to the right."""
    mask = coco_mask.decode(rle)
    code = coco_mask.encode(np.asfortranarray(np.roll(mask, pixels, axis=1)))
    return {"size": rle["size"], "counts": code["counts"].decode()}


def predicted(data, number):
    """The page of a video, with its annotated tracks as predictions."""
    truth = json.loads((data / "instances.json").read_text())
    video = truth["videos"][number]
    tracks = [t for t in truth["annotations"] if t["video_id"] == video["id"]]
    names = [category["name"] for category in truth["categories"]]
    probs = np.zeros((len(tracks), len(names)), np.float32)
    labels = [track["category_id"] - 1 for track in tracks]
    probs[np.arange(len(tracks)), labels] = 0.97 - 0.06 * np.arange(len(tracks))
    live = LiveTracks(np.arange(1, len(tracks) + 1, dtype=np.int32), probs)
    size = (video["height"], video["width"])
    page = PredictedPage("shapes.mp4", size, names, 10.0)
    for t, name in enumerate(video["file_names"]):
        masks = [track["segmentations"][t] for track in tracks]
        rows = [i for i, rle in enumerate(masks) if rle]
        shown = [masks[i] | {"counts": masks[i]["counts"].encode()} for i in rows]
        pixels = np.asarray(Image.open(data / "JPEGImages" / name))
        page.add(pixels, FrameResult(t, live, np.array(rows, int), shown, size))
    return page


def test_the_pictures_of_the_documentation(window, tmp_path, monkeypatch):
    folder = Path(os.environ.get("VIS_JAX_PICTURES", tmp_path)).resolve()
    monkeypatch.chdir(tmp_path)  # the page shows paths as they are given
    sizes = ("--height=180", "--width=320", "--length=20", "--num_videos=6")
    assert call("data", "make_shapes", "--output=data", *sizes).code == 0
    data = Path("data")
    results = imperfect(json.loads((data / "instances.json").read_text()))
    Path("results.json").write_text(json.dumps(results))
    words = ("--truth=data/instances.json", "--results=results.json", "--tracking")
    words = (*words, "--report=report.html", "--frames=data/JPEGImages")
    assert call("score", *words).code == 0
    window.resize(1240, 1110)
    window.open(Path("report.html"))
    window.run(
        "const order = document.getElementById('order');"
        "order.value = 'most switches first';"
        "order.dispatchEvent(new Event('change'))"
    )
    window.click(".video-row")
    window.click("[data-line] .switch")
    window.run("window.scrollTo(0, 0)")
    painted(window, "truth")
    shot(window, folder / "report_score.png")
    window.run("document.querySelector('.columns').scrollIntoView()")
    shot(window, folder / "report_errors.png")

    predicted(data, 4).write("predicted.html")
    window.resize(1100, 1160)
    window.open(Path("predicted.html"))
    assert window.run("return document.querySelectorAll('[data-pane]').length") == 1
    assert window.run("return document.querySelector('#video-rows')") is None
    window.click_at("[data-line=prediction-0] .strip", 0.5)
    assert window.text("#frame-label") == "frame 10 of 19"
    window.run("window.scrollTo(0, 0)")
    painted(window, "prediction")
    shot(window, folder / "report_predict.png")
    check_harmless(window)


def painted(window, pane):
    """Waits until a picture is there: the plain background is #20242c."""
    plain = [32, 36, 44]
    wait_for(lambda: pixel(window, pane, 0.01, 0.99), lambda colour: colour != plain)


def wait_for(read, enough):
    """Polls `read` until `enough` accepts its value."""
    for _ in range(250):
        value = read()
        if enough(value):
            return value
        time.sleep(0.02)
    raise AssertionError(value)
