"""Makes small ground-truth and results files, as JSON content."""

import numpy as np
from pycocotools import mask as coco_mask

BLOCK = 40  # pixels: a grid of 8 x 8 blocks reaches all three area ranges


def rle(mask):
    """Encodes a bool [H, W] mask as compressed RLE with string counts; None stays."""
    if mask is None:
        return None
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def rows(*counts, size=(4, 10)):
    """Makes masks of given areas, filled row by row from the top left."""
    masks = []
    for count in counts:
        mask = None
        if count is not None:
            mask = (np.arange(size[0] * size[1]) < count).reshape(size)
        masks.append(mask)
    return masks


def track(track_id, masks, *, video=1, category=1, crowd=0, occlusion=None):
    """Makes an annotation."""
    entry = {
        "id": track_id,
        "video_id": video,
        "category_id": category,
        "iscrowd": crowd,
        "segmentations": [rle(mask) for mask in masks],
        "areas": [None if mask is None else int(mask.sum()) for mask in masks],
    }
    return entry | ({"occlusion": occlusion} if occlusion else {})


def prediction(score, masks, *, video=1, category=1):
    """Makes an entry of a results file."""
    return {
        "video_id": video,
        "category_id": category,
        "score": score,
        "segmentations": [rle(mask) for mask in masks],
    }


def truth_file(annotations, *, lengths=(4,), size=(4, 10), num_categories=2):
    """Makes a ground-truth file; video i + 1 has lengths[i] frames."""
    videos = [
        {
            "id": i + 1,
            "height": size[0],
            "width": size[1],
            "length": length,
            "file_names": [f"clip{i + 1}/{t:05d}.jpg" for t in range(length)],
        }
        for i, length in enumerate(lengths)
    ]
    categories = [{"id": k, "name": f"c{k}"} for k in range(1, num_categories + 1)]
    return {"videos": videos, "categories": categories, "annotations": annotations}


def random_files(seed, *, odd):
    """Makes ground truth and results with ties, crowds, absent frames and, if `odd`,
    irregularities that the official tool accepts.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, rng.integers(1, 4))
    size, num_categories = (8 * BLOCK, 8 * BLOCK), int(rng.integers(1, 4))
    annotations, results = [], []
    for video, length in enumerate(lengths, 1):
        for _ in range(rng.integers(0, 4)):
            category = int(rng.integers(1, num_categories + 1))
            grids = [_grid(rng) for _ in range(length)]
            entry = track(
                len(annotations) + (0 if odd and rng.random() < 0.05 else 1),
                [_mask(grid) for grid in grids],
                video=video,
                category=category,
                crowd=int(rng.random() < 0.15),
            )
            if rng.random() < 0.2:  # exactly on a boundary: belongs to two ranges
                entry["areas"] = [float(rng.choice([16384, 65536]))] * length
            annotations.append(entry)
            for _ in range(rng.integers(0, 4)):
                found = [_disturb(rng, grid) for grid in grids]
                other = category if rng.random() < 0.8 else int(rng.integers(1, 5))
                if other > num_categories and not odd:
                    other = 1
                results.append(
                    prediction(
                        float(rng.choice([0.3, 0.5, 0.9, rng.random()])),
                        _odd_masks(rng, found) if odd else [_mask(x) for x in found],
                        video=video,
                        category=other,
                    )
                )
    if odd and len(annotations) > 1 and rng.random() < 0.2:
        annotations[0]["id"] = annotations[-1]["id"]
    results = [results[i] for i in rng.permutation(len(results))]
    truth = truth_file(
        annotations,
        lengths=[int(length) for length in lengths],
        size=size,
        num_categories=num_categories,
    )
    return truth, results


def _grid(rng):
    """Draws a rectangle of blocks, or None."""
    if rng.random() < 0.15:
        return None
    top, left = rng.integers(0, 6, 2)
    height, width = rng.integers(1, 9, 2)
    grid = np.zeros((8, 8), bool)
    grid[top : top + height, left : left + width] = True
    return grid


def _disturb(rng, grid):
    """Returns the grid unchanged, enlarged, cropped, removed, or empty."""
    choice = rng.integers(0, 8)
    if grid is None or choice == 0:
        return _grid(rng) if rng.random() < 0.5 else None
    if choice == 1:
        return np.zeros_like(grid)
    if choice == 2:
        return grid | np.roll(grid, 1, 0)
    if choice == 3:
        return grid & np.roll(grid, 1, 1)
    return grid


def _mask(grid):
    return None if grid is None else np.kron(grid, np.ones((BLOCK, BLOCK), bool))


def _odd_masks(rng, grids):
    """Occasionally returns a list of another length, or masks of another size."""
    masks = [_mask(grid) for grid in grids]
    if rng.random() < 0.15:
        masks = masks[: rng.integers(0, len(masks) + 1)]
    elif rng.random() < 0.1:
        masks = masks + masks[-1:]
    for t, mask in enumerate(masks):
        if mask is not None and rng.random() < 0.1:
            masks[t] = mask[::2, ::2]
    return masks
