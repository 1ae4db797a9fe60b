"""Who evaluates which videos, and what becomes of the files of all of them."""

import json

import numpy as np
import pytest

from data_pipeline.moving_shapes.dataset import MovingShapes
from tests.evaluate.test_loop import FILES, Model, left
from vis_jax.evaluate.loop import evaluate, evaluate_share
from vis_jax.evaluate.merge import count_shares, merge
from vis_jax.evaluate.shares import (
    Share,
    balance,
    divide,
    number_list,
    partial_files,
    partial_name,
    read_share,
)
from vis_jax.evaluate.spread import spread

LENGTHS = (3, 5, 2, 4, 3)


class Unequal(MovingShapes):
    """Videos of different lengths."""

    def __init__(self):
        super().__init__("val", num_videos=len(LENGTHS), height=32, width=48, length=5)
        pairs = zip(self.videos, LENGTHS, strict=True)
        self.videos = tuple(
            video._replace(length=n, file_names=video.file_names[:n])
            for video, n in pairs
        )


@pytest.fixture(scope="module")
def dataset():
    return Unequal()


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """The files of one process on one device."""
    folder = tmp_path_factory.mktemp("whole")
    evaluate(dataset, Model(), folder, top=10, run_id="one", progress=False)
    return {name: (folder / name).read_bytes() for name in FILES}


def evaluate_part(dataset, folder, text, model=None, run_id="one"):
    told = []
    model = model or Model()
    evaluate_share(
        dataset, [model], folder,
        top=10, run_id=run_id, share=read_share(text), tell=told.append,
    )  # fmt: skip
    return told


def test_heavy_items_go_first_to_the_lightest_share():
    assert divide([3, 5, 2, 4, 3], 2) == [[1, 4], [3, 0, 2]]
    assert divide([1, 1], 3) == [[0], [1], []]
    assert divide([0, 0, 0], 2) == [[0, 2], [1]]
    assert divide([], 2) == [[], []]
    assert divide([2, 2, 9], 1) == [[2, 0, 1]]


@pytest.mark.parametrize("count", [1, 2, 7, 16, 64])
def test_shares_have_every_item_once_and_about_the_same_weight(count):
    # As the validation set of YouTube-VIS 2019: 302 videos of up to 36 frames.
    weights = np.random.default_rng(0).integers(4, 37, 302).tolist()
    shares = divide(weights, count)
    assert sorted(index for share in shares for index in share) == [*range(302)]
    assert len(shares) == count
    assert balance(weights, shares) < 1.05
    assert balance([1, 1, 4], [[0, 1], [2]]) == pytest.approx(4 / 3)


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/", "/4", "1/0", "a/b", "-1/4"])
def test_a_share_that_cannot_be_is_named(text):
    with pytest.raises(ValueError, match=f"--shard: expected NUMBER/COUNT.*{text}$"):
        read_share(text)


def test_partial_files_are_found_by_their_names(tmp_path):
    names = [partial_name(Share(3, 16)), partial_name(Share(1, 1))]
    assert names == ["results.partial-03-of-16.jsonl", "results.partial.jsonl"]
    for name in [*names, "results.partial-3-of-16.jsonl", "results.json"]:
        (tmp_path / name).touch()
    assert list(partial_files(tmp_path)) == [Share(1, 1), Share(3, 16)]
    assert partial_files(tmp_path / "none") == {}
    assert number_list([2, 7, 5, 6, 9]) == "2,5-7,9"


def test_shares_merge_to_the_files_of_one_process(dataset, whole, tmp_path):
    assert evaluate_part(dataset, tmp_path, "2/3") == [0, 1, 2]
    expected = r"expected 3 finished shares, got 1: missing 1,3$"
    with pytest.raises(ValueError, match=expected):
        merge(dataset, tmp_path, run_id="one", count=count_shares(tmp_path, "one"))
    for text in ("3/3", "1/3"):
        evaluate_part(dataset, tmp_path, text)
    # One of another checkpoint is no part of it; nor is one that is cut off.
    other = tmp_path / "other"
    evaluate_part(dataset, other, "1/3", run_id="two")
    path = tmp_path / partial_name(Share(1, 3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes((other / path.name).read_bytes())
    expected = f"{path}: expected a share of this config and checkpoint, got one of"
    with pytest.raises(ValueError, match=expected):
        count_shares(tmp_path, "one")
    path.write_bytes(b"".join(lines)[:-5])
    expected = rf"got 2: unfinished 1 \({len(lines) - 2} of {len(lines) - 1} videos\)$"
    with pytest.raises(ValueError, match=expected):
        merge(dataset, tmp_path, run_id="one", count=3)
    model = Model()
    evaluate_part(dataset, tmp_path, "1/3", model)
    assert model.asked == 1
    merge(dataset, tmp_path, run_id="one", count=3)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == whole
    assert left(tmp_path) == ["other", *FILES]


def test_shares_by_other_numbers_do_not_mix_in_a_merge(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"expected the partial files of .*, got none"):
        count_shares(tmp_path, "one")
    evaluate_part(dataset, tmp_path, "1/2")
    evaluate_part(dataset, tmp_path, "1/3")
    expected = r"results\.partial-1-of-2\.jsonl: expected a share by 3, .* got one by 2"
    with pytest.raises(ValueError, match=expected):
        count_shares(tmp_path, "one")


def test_a_job_goes_on_with_another_number_of_processes(dataset, whole, tmp_path):
    evaluate_part(dataset, tmp_path, "1/2")
    evaluate_part(dataset, tmp_path, "2/2", run_id="two")
    model = Model()
    evaluate(dataset, model, tmp_path, top=10, run_id="one", progress=False)
    assert model.asked == 3
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == whole
    # That of the other run is not ours to remove.
    assert left(tmp_path) == sorted([*FILES, partial_name(Share(2, 2))])


def test_a_share_is_not_read_while_another_process_writes_it(dataset, tmp_path):
    class Merging(Model):
        def __call__(self, frames, **clock):
            for frame in super().__call__(frames, **clock):
                with pytest.raises(ValueError, match="expected no other evaluation"):
                    merge(dataset, tmp_path, run_id="one", count=2)
                yield frame

    evaluate_part(dataset, tmp_path, "2/2")
    evaluate_part(dataset, tmp_path, "1/2", Merging())


def test_several_streams_give_the_files_of_one(dataset, whole, tmp_path):
    models = [Model() for _ in range(8)]
    report = evaluate(dataset, models, tmp_path, top=10, run_id="one", progress=False)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == whole
    assert sum(model.asked for model in models) == len(LENGTHS)
    assert json.loads(whole["scores.json"]) == report


def test_an_error_of_one_worker_ends_the_others():
    ended = []

    def wait(item, left):
        while not left():
            pass
        ended.append(item)

    def fail(item, left):
        raise OSError(28, "full", "somewhere")

    with pytest.raises(OSError, match="somewhere"):
        list(spread([1, 2, 3], [wait, wait, fail]))
    assert len(ended) == 2


def test_workers_end_when_nobody_asks_any_more():
    def work(item, left):
        return -item

    results = spread(range(100), [work, work])
    item, result = next(results)
    assert result == -item
    results.close()
    assert sorted(spread([3, 1, 2], [work, work])) == [(1, -1), (2, -2), (3, -3)]
    assert list(spread([], [work, work])) == []
