"""Measures how well `data prepare --link` assigns identities, on moving shapes.

Masks are ground truth. Prints, for the first videos of `val`, the percentage of
consecutive labels of an object with the same identity, and of consecutive labels of a
track that belong to one object, by minimum overlap and by frames between two labels.

Run: python benchmarks/bench_link.py --videos 20
"""

import argparse

import numpy as np

from data_pipeline.convert.foreign import ForeignLabel, encode
from data_pipeline.moving_shapes.dataset import MovingShapes
from vis_jax.predict.link_labels import LabelLinker

LEAST = (0.05, 0.1, 0.2, 0.3, 0.5)
EVERY = (1, 2, 5)


def labels_of(
    shapes: MovingShapes, index: int, every: int
) -> tuple[list[ForeignLabel], list[int]]:
    """Returns the labels of every n-th frame of a video, and the object of each."""
    drawn = shapes.render(index, range(0, shapes.videos[index].length, every))
    labels, objects = [], []
    for k, (label, masks) in enumerate(zip(drawn.labels, drawn.masks, strict=True)):
        for frame, mask in enumerate(masks):
            run = encode(mask)
            if run is not None:
                name = shapes.categories[label].name
                labels.append(ForeignLabel(name, False, frame, run))
                objects.append(k)
    order = np.argsort([label.frame for label in labels], kind="stable")
    return [labels[k] for k in order], [objects[k] for k in order]


def agreeing(groups: list[int], others: list[int]) -> tuple[int, int]:
    """Counts consecutive labels of each group: pairs equal in `others`, and all."""
    last: dict[int, int] = {}
    same = total = 0
    for group, other in zip(groups, others, strict=True):
        if group in last:
            total += 1
            same += last[group] == other
        last[group] = other
    return same, total


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=20)
    count = parser.parse_args().videos
    print("| difficulty | every | " + " | ".join(map(str, LEAST)) + " |")
    print("| --- |" + " --- |" * (len(LEAST) + 1))
    linkers = [LabelLinker(least) for least in LEAST]
    for difficulty in ("easy", "medium", "hard"):
        shapes = MovingShapes("val", num_videos=count, length=30, difficulty=difficulty)
        for every in EVERY:
            videos = [labels_of(shapes, index, every) for index in range(count)]
            cells = []
            for linker in linkers:
                sums = np.zeros(4, int)
                for labels, objects in videos:
                    tracks = linker(labels)
                    sums += (*agreeing(objects, tracks), *agreeing(tracks, objects))
                kept, pure = sums[0] / sums[1], sums[2] / sums[3]
                cells.append(f"{100 * kept:.1f} / {100 * pure:.1f}")
            print(f"| {difficulty} | {every} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
