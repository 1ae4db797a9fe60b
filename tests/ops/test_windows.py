import numpy as np
import pytest

from tests.compiled import compiled
from vis_jax.ops.windows import (
    merge,
    pad_map,
    padded,
    partition,
    relative_index,
    shift_attend,
)

_partition = compiled(partition, static_argnums=1)


def test_partition_cuts_row_by_row_and_merge_undoes_it():
    x = np.arange(4 * 6.0).reshape(4, 6, 1)
    windows = _partition(x, 2)
    np.testing.assert_array_equal(windows[1, :, 0], [2, 3, 8, 9])
    merged = compiled(lambda x: merge(x, height=4, width=6, window=2))(windows)
    np.testing.assert_array_equal(merged, x)


@pytest.mark.parametrize(("height", "width", "window"), [(8, 12, 4), (3, 6, 3)])
def test_attend_where_the_roll_kept_neighbours_together(height, width, window):
    shift = window // 2
    attend = shift_attend(height, width, window, shift)
    assert attend.shape == (height * width // window**2, window**2, window**2)
    # Tokens that the roll moved by the same way are as far apart as they were.
    place = np.stack(np.mgrid[:height, :width], axis=-1).astype(np.float32)
    moved = place - np.roll(place, (-shift, -shift), axis=(0, 1))
    windows = _partition(moved, window)
    alike = (windows[:, :, None] == windows[:, None]).all(axis=-1)
    np.testing.assert_array_equal(attend, alike)


def test_relative_index_depends_on_the_difference_only():
    index = relative_index(3)
    assert index[4, 4] == 12  # the middle of 5 x 5
    assert index[0, 8] == 0  # query two above and to the left of the key
    assert (index + index.T == 24).all()
    assert len(np.unique(index)) == 25


def test_padding_goes_below_and_right():
    x = compiled(pad_map, static_argnums=1)(np.ones((1, 5, 8, 2)), 4)
    assert x.shape == (1, 8, 8, 2)
    assert padded(5, 4) == 8
    assert float(x[:, :5].min()) == 1
    assert float(x[:, 5:].max()) == 0
