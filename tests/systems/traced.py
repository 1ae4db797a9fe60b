"""Checks shapes, dtypes and loss weights of a system by tracing only."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.systems.contract import first_batch
from vis_jax.commands.run_settings import RunSettings
from vis_jax.structures import Batch, Clip, LossAux, Predictions
from vis_jax.systems import SYSTEMS
from vis_jax.systems.system import System


class TracedStep(NamedTuple):
    """Shapes around the first step."""

    before: Any  # the state
    after: Any
    found: Predictions


def step_shapes(system: System, config: RunSettings) -> Predictions:
    """Returns the shapes of the first step's predictions for a config's first clip."""
    batch = first_batch(config)
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    return _traced_step(system, variables, batch).found


def _traced_step(system: System, variables: dict, batch: Batch) -> TracedStep:
    clip = Clip(batch.images[0], batch.frame_valid[0], batch.sizes[0])
    state = jax.eval_shape(system.start, clip)
    return TracedStep(state, *jax.eval_shape(system.step, variables, state, clip))


def check_dtypes(
    build: Callable[[RunSettings], System], config: RunSettings
) -> tuple[Any, Any]:
    """Checks that parameters, loss and masks are float32 for any compute dtype.

    Tracing uses strict promotion, so that mixed dtypes are an error.

    Returns:
      The shapes of the state before and after a step.
    """
    system, batch = build(config), first_batch(config)
    variables = jax.eval_shape(system.init, jax.random.key(0), batch)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    loss, _ = jax.eval_shape(system.loss, variables, batch, jax.random.key(0))
    assert loss.dtype == jnp.float32
    before, after, found = _traced_step(system, variables, batch)
    assert found.mask_logits.dtype == jnp.float32
    return before, after


def check_none(name: str, config: RunSettings) -> None:
    """Checks that `none` has the shapes of the detector's detections.

    Args:
      name: of a system whose masks cover the canvas.
      config: of the system.
    """
    detector, batch = SYSTEMS[name].detector(config), first_batch(config)
    variables = jax.eval_shape(detector.init, jax.random.key(0), batch)

    def look(variables, images, size):
        return detector.detect(
            variables, detector.features(variables, images, size), size
        )

    found = jax.eval_shape(look, variables, batch.images[0], batch.sizes[0])
    empty = jax.eval_shape(lambda: detector.empty(len(batch.images[0])))
    for field, ours in found._asdict().items():
        theirs = getattr(empty, field)
        assert ours.dtype == theirs.dtype, field
        # Masks have the size of the canvas, which is unknown before the first frame.
        axes = 2 if field == "mask_logits" else None
        assert ours.shape[:axes] == theirs.shape[:axes], field


def check_weights(
    system: System, config: RunSettings, weights: dict[str, float]
) -> LossAux:
    """Checks the weight of each loss term, with all unweighted terms patched to 1.

    Compiles fast, as nothing then depends on the network.
    """
    batch = first_batch(config)
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    loss, aux = jax.jit(system.loss)(zeros, batch, jax.random.key(0))
    assert {name: float(term) for name, term in aux.terms.items()} == weights
    assert float(loss) == sum(weights.values())
    return aux
