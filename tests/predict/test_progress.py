import time

from vis_jax.predict import progress
from vis_jax.predict.progress import Progress


def _two_frames(shown, seconds=0.03):
    with shown("compiling"):
        time.sleep(seconds)
    for _ in range(2):
        shown.read_frame()
        with shown("model"):
            pass
        shown.finish_frame()


def test_without_a_terminal_each_phase_has_a_line_once(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with Progress(1200, terminal=False) as shown:
        with shown("reading"):
            shown.read_frame()
        _two_frames(shown)
        with shown("compiling"):  # such as of another size
            pass
        shown.add("writing", 2.0)
        shown.add("drawing", 1.04)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading       1 frame before the model begins"
    assert lines[1].startswith("compiling     0.")
    assert lines[2].startswith("model         0.")
    assert lines[3:] == [
        "frames        1 of 1,200 done",
        "frames        2 of 1,200 done",
        "drawing       1.0 s",
        "writing       2.0 s",
    ]
    assert set(shown.seconds) == {"reading", "compiling", "model", "drawing", "writing"}
    assert shown.seconds["compiling"] >= 0.03


def test_on_a_terminal_a_bar_counts_frames_that_are_done(capsys, monkeypatch):
    monkeypatch.setattr(progress, "TICK", 0.005)
    with Progress(1, terminal=True) as shown:
        for _ in range(7):
            shown.read_frame()
        time.sleep(0.3)  # many ticks, also on a busy machine
        _two_frames(shown, 0.3)  # one more than the file said
        time.sleep(0.05)
    text = capsys.readouterr().err
    shown = [part.rstrip() for part in text.split("\r") if part.strip()]
    assert any(part.startswith("reading 7") for part in shown)
    assert any(part.startswith("compiling") for part in shown)
    assert shown[0].endswith("0/1 frames") and shown[-1].endswith("2/2 frames")
    assert "\nmodel" not in text and "100%" in shown[-1]


def test_a_bar_without_a_total(capsys):
    with Progress(None, terminal=True) as shown:
        _two_frames(shown)
    assert "2frame" in capsys.readouterr().err.split("\r")[-1]
