"""Videos that are held out where none are named."""

from data_pipeline.datasets.by_name import make_dataset
from data_pipeline.datasets.dataset import Video
from data_pipeline.datasets.held_out import draw_held_out
from tests.commands.folder import edit, write_folder
from tests.recipes import data_settings

VIDEOS = [Video(10 + k, f"v{k}", 8, 8, 2, ("a", "b")) for k in range(10)]


def test_a_share_of_the_videos_is_held_out():
    labels = [{0, 1}] * 10
    chosen = draw_held_out(VIDEOS, labels, 0.3)
    assert len(chosen) == 3
    assert set(chosen) < {video.video_id for video in VIDEOS}
    assert draw_held_out(VIDEOS, labels, 0.3) == chosen  # always the same
    assert draw_held_out(VIDEOS, labels, 0.0) == ()
    assert len(draw_held_out(VIDEOS, labels, 0.01)) == 1  # at least one ..
    assert draw_held_out(VIDEOS[:1], labels[:1], 0.2) == ()  # .. unless it is the only


def test_categories_stay_in_the_training_videos():
    # Label 1 is in two videos, label 2 in one; two videos have no object.
    labels = [{0}, {0, 1}, {1}, {2}, {0}, {0}, {0}, {0}, set(), set()]
    chosen = draw_held_out(VIDEOS, labels, 1.0)
    left = [set(some) for k, some in enumerate(labels) if 10 + k not in chosen]
    assert set().union(*left) == {0, 1, 2}
    assert {13, 18, 19}.isdisjoint(chosen)
    # All but one video of label 0 and one of label 1.
    assert len(chosen) >= 5


def test_the_parts_of_a_folder(tmp_path):
    folder = write_folder(tmp_path / "in", num_videos=5)
    edit(folder, lambda c: [a.update(category_id=1) for a in c["annotations"]])
    settings = data_settings(name="folder", root=str(folder), held_out_share=0.4)
    names = {
        part: {video.name for video in make_dataset(settings, part).videos}
        for part in ("train", "held_out", "all")
    }
    assert (len(names["train"]), len(names["held_out"])) == (3, 2)
    assert names["train"] | names["held_out"] == names["all"]
    named = data_settings(
        name="folder", root=str(folder), held_out_share=0.4, held_out=(1,)
    )
    assert [v.video_id for v in make_dataset(named, "held_out").videos] == [1]
