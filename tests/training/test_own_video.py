"""The commands of docs/your_own_video.md, on small videos and a small model."""

import json
import shlex

from PIL import Image

from data_pipeline.moving_shapes.dataset import MovingShapes
from tests.command_line import call
from tests.own_videos import label_frames, write_videos
from tests.test_docs import BLOCK, ROOT

SHAPES = MovingShapes("val", num_videos=6, length=8, height=64, width=96)


def commands():
    text = (ROOT / "docs/your_own_video.md").read_text()
    blocks = [block for kind, block in BLOCK.findall(text) if not kind]
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line.removeprefix("python -m vis_jax.main ")) for line in lines]


def name_of(words):
    if words[0].startswith("--"):
        return "train"
    return " ".join(word for word in words[:2] if not word.startswith("--"))


def test_from_a_video_to_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_videos(tmp_path / "videos", SHAPES)
    out = {}
    for words in commands():
        name = name_of(words)
        if name == "train":
            printed = out["data prepare"].partition("train         ")[2]
            assert shlex.split(printed.replace("\\\n", ""))[3:] == words
            words = [f"{w}:debug" if w.startswith("configs/") else w for w in words]
            words += ["--config.test.videos=1"]  # else as other tests compile it
        outcome = call(*words)
        assert outcome.code == 0, (words, outcome.err)
        out[name] = outcome.out
        if name == "data extract":
            label_frames(tmp_path / "frames", SHAPES, tmp_path / "export")
    expected = ["data extract", "data prepare", "data check", "train", "predict"]
    assert list(out) == expected
    assert "video0: 4 frames" in out["data extract"]
    tracks = sum(len(SHAPES.render(k, [0]).labels) for k in range(6))
    assert f"tracks        {tracks}\n" in out["data prepare"]
    assert "defects       0\nwarnings      0\n" in out["data check"]
    assert "tested on     1 video held out of train\n" in out["train"]
    assert "(8 frames in" in out["predict"]
    assert (tmp_path / "out/video.mp4").stat().st_size > 0
    with Image.open("data/mine/train_identities.png") as sheet:
        assert sheet.height > 6 * 180
    categories = json.loads((tmp_path / "runs/mine/categories.json").read_text())
    assert [c["name"] for c in categories] == [c.name for c in SHAPES.categories]
