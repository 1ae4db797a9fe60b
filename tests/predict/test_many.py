"""Videos of a folder or a list, and the folders of their results."""

import os
from pathlib import Path

import pytest

from vis_jax.predict.errors import PredictError
from vis_jax.predict.many import find_videos


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (10 + len(name)))
    return folder


def names(source):
    return [video.name for video in find_videos([str(source)]).videos]


def test_a_folder_of_videos_has_files_and_folders_of_images(tmp_path):
    fill(tmp_path, "b10.mp4", "b9.MKV", "notes.md", ".hidden.mp4", "a/0.jpg", "a/1.jpg")
    fill(tmp_path, "empty/notes.txt", "c.v2/0.png")
    found = find_videos([str(tmp_path)])
    assert [video.name for video in found.videos] == ["a", "b9", "b10", "c.v2"]
    assert [video.size for video in found.videos] == [34, 16, 17, 20]
    assert found.videos[0].path == str(tmp_path / "a")
    assert found.ignored == (f"{tmp_path}/empty", f"{tmp_path}/notes.md")


@pytest.mark.parametrize("files", [("0.jpg", "b.txt"), ("0.gif", "1.gif"), ("a.txt",)])
def test_what_is_one_video_or_none_stays_so(tmp_path, files):
    fill(tmp_path, *files)
    assert find_videos([str(tmp_path)]) is None
    for name in ("none", "none.txt"):
        assert find_videos([str(tmp_path / name)]) is None
    for name in ("-", "camera:0"):
        assert find_videos([name]) is None


def test_a_video_file_is_one_video(tmp_path):
    fill(tmp_path, "a.mp4")
    assert find_videos([str(tmp_path / "a.mp4")]) is None


@pytest.mark.parametrize("image", ["0.jpg", "0.heic", "0.gif"])
def test_a_folder_with_images_beside_videos_is_an_error(tmp_path, image):
    fill(tmp_path, image, "a.mp4")
    message = rf"or videos, got both {image} and a\.mp4; .* '{tmp_path}/\*\.mp4'"
    with pytest.raises(PredictError, match=message):
        find_videos([str(tmp_path)])


def test_several_sources_are_many_videos(tmp_path, monkeypatch):
    fill(tmp_path, "a.mp4", "b.mov", "in/c.mp4", "in/note.md", "d/0.png", "e.jpg")
    words = [str(tmp_path / name) for name in ("b.mov", "in", "d")]
    found = find_videos(words)
    assert [video.name for video in found.videos] == ["b", "c", "d"]
    assert found.ignored == (f"{tmp_path}/in/note.md",)
    assert names(tmp_path / "*.m*") == ["a", "b"]
    for pattern in ("a.*", "*", "d/*"):  # one video, others among them, images
        assert find_videos([str(tmp_path / pattern)]) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "list.txt").write_text("~/b.mov\n~/a.mp4\n")
    assert find_videos(["~/list.txt"]).videos == find_videos(["~/b.mov", "~/a.mp4"])[0]
    with pytest.raises(PredictError, match="expected camera:0 alone"):
        find_videos([words[0], "camera:0"])


def test_a_list_names_videos_relative_to_itself(tmp_path):
    fill(tmp_path, "in/a.mp4", "a.mov", "b.mp4", "in/c/0.png")
    path = tmp_path / "in" / "list.txt"
    path.write_text(f"# mine\na.mp4\n\n ../a.mov \n{tmp_path}/b.mp4\nc\nmissing.mp4\n")
    # Where two would have the same name, both keep their endings.
    assert names(path) == ["a.mp4", "a.mov", "b", "c", "missing"]
    assert find_videos([str(path)]).videos[4].size == 0


def test_what_cannot_be_read_counts_as_empty(tmp_path, monkeypatch):
    def refuse(path, *unused, **more):
        raise PermissionError(13, "Permission denied", str(path))

    fill(tmp_path, "a.mp4", "b/0.png", "c.mp4")
    (tmp_path / "list.txt").write_text(f"a.mp4\nb\n{'x' * 300}.mp4\n")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refuse)
        patch.setattr(Path, "is_dir", os.path.isdir)
        patch.setattr(Path, "is_file", os.path.isfile)
        sizes = [one.size for one in find_videos([str(tmp_path / "list.txt")]).videos]
    assert sizes == [0, 0, 0]
    entries = [*tmp_path.iterdir()]
    own = lambda path: iter(entries) if path == tmp_path else refuse(path)  # noqa: E731
    monkeypatch.setattr(Path, "iterdir", own)
    found = find_videos([str(tmp_path)])
    assert [video.name for video in found.videos] == ["a", "c"]
    assert found.ignored == (f"{tmp_path}/b", f"{tmp_path}/list.txt")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# nothing\n", "expected the path of a video on each line"),
        (b"\xff\xfe\n", "expected text in UTF-8"),
        (b"a.mp4\n-\n", "line 2: expected a file or a folder of images, got -"),
        (b"rtsp://host/a\n", "line 1: expected a file or a folder of images"),
        (b"a.mp4\nin/A.mp4\n", "A.mp4: expected another name than .*a.mp4, as both"),
    ],
)
def test_a_list_that_cannot_be_is_named(tmp_path, content, expected):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(PredictError, match=expected):
        find_videos([str(tmp_path / "list.txt")])


def test_a_video_is_finished_if_its_results_are_of_it_and_of_the_run(tmp_path):
    (video,) = find_videos([str(fill(tmp_path / "in", "a.mp4"))]).videos
    out = tmp_path / "out"
    assert not video.finished(out, "one")
    fill(out, "a/results.json")
    (out / "a/run.json").write_text('{"run_id": "one", "source": "a", "bytes": 15}')
    assert video.finished(out, "one")
    assert not video.finished(out, "two")
    assert not video._replace(size=16).finished(out, "one")
    (out / "a/results.json").unlink()
    assert not video.finished(out, "one")
