"""The page as a reader uses it; skipped where there is no Chromium."""

import pytest

from tests.browser import browser
from tests.report.scene import HOSTILE, write_scene
from vis_jax.scoring import score

pytestmark = pytest.mark.slow


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


def wait_for(read, enough):
    """What `read` returns once it is enough."""
    for _ in range(100):
        value = read()
        if enough(value):
            return value
    raise AssertionError(value)
