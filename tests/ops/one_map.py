"""RoIAlign on a pyramid of one map."""

import jax.numpy as jnp

from vis_jax.ops.roi_align import pyramid_roi_align


def roi_align(features, boxes, *, scale, size, samples, convention):
    """Samples features of boxes on one map [H, W, C]; see `pyramid_roi_align`."""
    return pyramid_roi_align(
        [features],
        boxes,
        jnp.zeros(boxes.shape[0], jnp.int32),
        scales=(scale,),
        size=size,
        samples=samples,
        convention=convention,
    )
