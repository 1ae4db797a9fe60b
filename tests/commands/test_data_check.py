"""`data check`: what it prints, how it ends, and its contact sheet."""

import numpy as np
import pytest
from PIL import Image

from tests.command_line import call, error_of
from tests.commands.folder import cut, edit, write_folder

HEADER = "category videos tracks frames with a mask"


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "shapes", num_videos=3)


def lines_of(outcome, kind):
    return [line for line in outcome.out.splitlines() if line.startswith(f"{kind}: ")]


def test_a_clean_folder_ends_with_0_and_its_counts(folder):
    outcome = call("data", "check", "--root", folder)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0].split() == HEADER.split()
    assert lines[-3:] == [
        "videos        3, 12 frames",
        "defects       0",
        "warnings      0",
    ]
    rows = [line.split() for line in lines[1:10]]
    assert rows[-1][:2] == ["all", "3"]
    assert sum(int(row[2]) for row in rows[:-1]) == int(rows[-1][2])


def damage(content):
    first, second, third = content["videos"]
    first["file_names"][3] = "../../odd\n\x1b[2J.jpg"
    second["width"] = "wide"
    third["file_names"][1] = third["file_names"][0]
    tracks = [one for one in content["annotations"] if one["video_id"] == 3]
    tracks[0]["category_id"] = 77
    tracks[1]["areas"] = [1] * 4  # a warning


def test_every_defect_is_a_line_and_the_code_is_2(folder):
    edit(folder, damage)
    images = folder / "JPEGImages"
    frames = sorted(images.glob("*_00000/*.jpg"))
    frames[0].unlink()
    cut(frames[1])
    outcome = call("data", "check", "--root", folder)
    assert outcome.code == 2
    defects = lines_of(outcome, "defect")
    for text in (
        "video 1, file_names[3]: expected a path inside the image folder",
        "odd\\n\\x1b[2J.jpg",  # harmless on a terminal
        "video 2, width",
        "category_id: expected an id that 'categories' lists, got 77",
        "file_names[1]: expected a name used once",
        f"{frames[0]}, video ",
        f"{frames[1]}, video ",
    ):
        assert sum(text in line for line in defects) == 1, (text, defects)
    assert len(defects) == 6
    (warning,) = lines_of(outcome, "warning")
    assert "areas[0]" in warning
    assert outcome.out.endswith("defects       6\nwarnings      1\n")
    expected = f"error: {folder / 'instances.json'}: expected no defects, got 6\n"
    assert outcome.err == expected


def test_warnings_alone_end_with_0(folder):
    edit(folder, lambda content: content["annotations"][0].update(areas=[1] * 4))
    outcome = call("data", "check", "--root", folder)
    assert outcome.code == 0
    assert outcome.out.endswith("defects       0\nwarnings      1\n")


def test_the_sheet_shows_masks_and_grey_where_a_frame_is_lost(folder, tmp_path):
    words = ("--root", folder, "--contact_sheet", tmp_path / "sheet.png")
    outcome = call("data", "check", *words, "--sheet_videos=2")
    assert outcome.code == 0
    assert f"sheet         {tmp_path / 'sheet.png'}, 2 videos\n" in outcome.out
    before = np.array(Image.open(tmp_path / "sheet.png"))
    assert before.shape == (2 * 180 + 4, 6 * 324 - 4, 3)
    assert (before[:, 4 * 324 :] == 32).all()  # these videos have four frames
    sorted((folder / "JPEGImages").glob("*_00000/*.jpg"))[1].unlink()
    assert call("data", "check", *words, "--sheet_videos=2").code == 2
    after = np.array(Image.open(tmp_path / "sheet.png"))
    changed = (before != after).any(-1)
    assert changed[:180, 324:644].mean() > 0.5
    changed[:180, 324:644] = False
    assert not changed.any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shapes", "sheet.png"]


def test_what_cannot_be_checked_at_all_is_one_line(folder, tmp_path):
    words = ("data", "check", "--root")
    assert "no such folder" in error_of(*words, tmp_path / "none")
    sheet = ("--contact_sheet", tmp_path / "sheet.jpg")
    assert "expected a .png file" in error_of(*words, folder, *sheet)
    sheet = ("--contact_sheet", tmp_path / "none" / "sheet.png")
    assert "existing folder" in error_of(*words, folder, *sheet)
    assert "--sheet_videos" in error_of(*words, folder, "--sheet_videos=0")
    cut(folder / "instances.json")
    message = error_of(*words, folder)
    assert message.startswith(f"{folder / 'instances.json'}: expected JSON")
