"""Decodes run lengths to masks in a TensorFlow graph, directly at the target size.

Runs are resized before they are turned into pixels, so the cost depends on the size of
the objects after resizing, not of the source frames. Letters: N tracks, T frames, K
present masks, h source rows, H W target pixels.
"""

from typing import NamedTuple

import tensorflow as tf

from vis_jax.formats.rle import Runs


class RunTensors(NamedTuple):
    """`rle.Runs` of a whole data set as tensors."""

    ends: tf.Tensor  # int32 [R]
    splits: tf.Tensor  # int64 [K + 1]


def run_tensors(runs: Runs) -> RunTensors:
    """Converts runs to tensors, once, on the host."""
    with tf.device("CPU"):
        return RunTensors(tf.constant(runs.ends), tf.constant(runs.splits))


def decode_masks(
    runs: RunTensors,
    mask_index: tf.Tensor,
    *,
    height: tf.Tensor | int,
    rows: tf.Tensor,
    columns: tf.Tensor,
) -> tf.Tensor:
    """Decodes masks at given rows and columns of the source frames.

    Args:
      runs: all masks of the data set.
      mask_index: int32 [N, T], index of the mask; -1 for none.
      height: h, rows of the source frames.
      rows: int32 [H], source row of each target row, not descending.
      columns: int32 [W], the same for columns.

    Returns:
      bool [N, T, H, W]; False where there is no mask.
    """
    # Upsampling repeats source columns; the runs are drawn once per distinct column.
    columns, column_of = tf.unique(columns)
    flat = tf.reshape(mask_index, [-1])
    slots = tf.where(flat >= 0)[:, 0]
    drawn = _draw(runs, tf.gather(flat, slots), height, rows, columns)
    drawn = tf.cond(
        tf.size(columns) == tf.size(column_of),
        lambda: drawn,
        lambda: tf.gather(drawn, column_of, axis=1),
    )
    drawn = tf.transpose(drawn, [0, 2, 1])
    # An empty mask at the end represents all absent masks.
    drawn = tf.pad(drawn, [[0, 1], [0, 0], [0, 0]])
    place = tf.tensor_scatter_nd_update(
        tf.fill([tf.size(flat)], tf.size(slots)),
        slots[:, None],
        tf.range(tf.size(slots)),
    )
    masks = tf.cast(tf.gather(drawn, place), tf.bool)
    shape = tf.concat([tf.shape(mask_index), tf.shape(masks)[1:]], 0)
    return tf.reshape(masks, shape)


def _draw(
    runs: RunTensors,
    masks: tf.Tensor,
    height: tf.Tensor | int,
    rows: tf.Tensor,
    columns: tf.Tensor,
) -> tf.Tensor:
    """Draws K masks at distinct columns: uint8 [K, W, H], columns before rows."""
    begins, ends, owner = _foreground_runs(runs, masks)
    frame = tf.size(rows, tf.int64) * tf.size(columns, tf.int64)
    begins = _move_to_target(begins, height, rows, columns) + owner * frame
    ends = _move_to_target(ends, height, rows, columns) + owner * frame
    pixels = tf.raw_ops.RaggedRange(
        starts=begins, limits=ends, deltas=tf.constant(1, tf.int64)
    ).rt_dense_values
    drawn = tf.raw_ops.SparseToDense(  # far faster than scatter_nd
        sparse_indices=pixels,
        output_shape=[tf.size(masks, tf.int64) * frame],
        sparse_values=tf.ones([], tf.uint8),
        default_value=tf.zeros([], tf.uint8),
        validate_indices=False,  # ascending within a mask, and masks in order
    )
    return tf.reshape(drawn, [tf.size(masks), tf.size(columns), tf.size(rows)])


def _foreground_runs(
    runs: RunTensors, masks: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns first pixel, end and mask (index in `masks`) of each foreground run."""
    # Run 2 j + 1 of a mask is foreground and begins where run 2 j ends.
    first = tf.gather(runs.splits, masks)
    pairs = (tf.gather(runs.splits, masks + 1) - first) // 2
    count = tf.ragged.range(pairs)
    owner = count.value_rowids()
    background = tf.gather(first, owner) + 2 * count.flat_values
    return (
        tf.gather(runs.ends, background),
        tf.gather(runs.ends, background + 1),
        owner,
    )


def _move_to_target(
    positions: tf.Tensor, height: tf.Tensor | int, rows: tf.Tensor, columns: tf.Tensor
) -> tf.Tensor:
    """Maps source pixels to the next target pixel in column-major order: int64."""
    column, row = positions // height, positions % height
    target_column = tf.searchsorted(columns, column)
    target_row = tf.searchsorted(rows, row)
    last = tf.size(columns) - 1
    same = tf.gather(columns, tf.minimum(target_column, last)) == column
    same &= target_column <= last
    moved = target_column * tf.size(rows) + tf.where(same, target_row, 0)
    return tf.cast(moved, tf.int64)
