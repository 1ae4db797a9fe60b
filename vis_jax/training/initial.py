"""Initial state of a run: random, from other weights, or from a checkpoint."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vis_jax.params import check_matches, flatten, unflatten
from vis_jax.structures import Batch
from vis_jax.systems.system import System
from vis_jax.training import optimizer as optimizers
from vis_jax.training.accumulate import check_microbatches
from vis_jax.training.checkpoint import Checkpoints, load_variables
from vis_jax.training.run_config import LoopSettings
from vis_jax.training.sharding import MeshSettings, Tree, param_sharding, rule_paths
from vis_jax.training.state import TrainState, start_average
from vis_jax.training.step import UpdateRules, make_update
from vis_jax.training.tree_check import MismatchError, check_finite, check_same_tree

LONGEST_HINT = 3  # patterns


class Plan(NamedTuple):
    """Functions and shapes of a run before anything is computed."""

    init: Callable[[Batch], dict]  # random variables
    new: Callable[[dict], TrainState]  # makes the state before the first update
    like: TrainState  # its shapes and shardings
    update: Callable  # compiled on its first call


def make_plan(config: LoopSettings, system: System, batch: Batch, mesh: Mesh) -> Plan:
    """Prepares a run without computing anything.

    Args:
      config: config of the run.
      system: system to train.
      batch: global batch, or its shapes.
      mesh: mesh of `config.mesh`.

    Raises:
      ValueError: the clips of a device cannot be divided into microbatches, or a rule
        of the optimiser or the mesh does not fit the parameters.
    """
    clips = batch.images.shape[0]
    check_microbatches(config.train.accumulate, clips, devices=mesh.size)

    def init(batch: Batch) -> dict[str, dict]:
        return dict(system.init(jax.random.key(config.seed), batch))

    variables = _placed(jax.eval_shape(init, batch), mesh, config.mesh)
    optimizer = optimizers.build(
        config.optimizer, num_steps=config.num_steps, params=variables["params"]
    )

    def new(variables: dict[str, dict]) -> TrainState:
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            variables=variables,
            opt_state=optimizer.transform.init(variables["params"]),
            rng=jax.random.fold_in(jax.random.key(config.seed), 1),
            average=start_average(variables) if config.train.ema else None,
        )

    like = _placed(jax.eval_shape(new, variables), mesh, config.mesh)
    update = make_update(
        system, optimizer, state=like, mesh=mesh, sharded=config.mesh,
        rules=UpdateRules(config.train.accumulate, config.train.ema),
    )  # fmt: skip
    return Plan(init, new, like, update)


def check_rules(config: LoopSettings, variables: dict[str, dict]) -> None:
    """Checks that each rule by path matches a parameter; for new runs.

    Args:
      config: has the rules of the optimiser and the mesh. `load_initial` checks
        `init_fresh`, which may also match what only the other weights have.
      variables: variables of the system, or their shapes.

    Raises:
      ValueError: a rule matches nothing.
    """
    optimizer = config.optimizer
    params = flatten(variables["params"])
    for field, rules in (
        ("rates", optimizer.rates),
        ("decays", optimizer.decays),
        ("late", optimizer.late),
    ):
        check_matches(f"optimizer.{field}", [rule for rule, *_ in rules], params)
    patterns = [pattern for pattern, _ in config.mesh.rules]
    check_matches("mesh.rules", patterns, rule_paths(variables))


def prepare(
    config: LoopSettings,
    system: System,
    batch: Batch,
    *,
    checkpoints: Checkpoints,
    mesh: Mesh,
    say: Callable[[str], None] | None = None,
) -> tuple[TrainState, Callable]:
    """Returns the initial state and the compiled update.

    The newest checkpoint takes precedence over `config.init_from`, and that over random
    values; `say` receives a line for each damaged checkpoint.

    Raises:
      ValueError: if the checkpoint or the weights do not fit the model; see
        `make_plan` and, for a new run, `check_rules`.
    """
    init, new, like, update = make_plan(config, system, batch, mesh)
    restored = checkpoints.restore_newest(like, say=say)
    if restored is not None:
        return restored, update
    check_rules(config, like.variables)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    variables = jax.jit(init, out_shardings=shardings.variables)(batch)
    if config.init_from:
        variables = load_initial(config.init_from, variables, fresh=config.init_fresh)
    return jax.jit(new, out_shardings=shardings)(variables), update


def load_initial(
    path: str, variables: dict[str, dict], *, fresh: Sequence[str]
) -> dict[str, dict]:
    """Replaces the values of variables by those of a checkpoint.

    Args:
      path: see `load_variables`.
      variables: random values, placed on the devices.
      fresh: regexes over whole paths within a collection, such as 'class_head/.*'.
        Matching variables keep their random values; all others must match the
        checkpoint.

    Raises:
      ValueError: a regex matches neither a variable nor one of the checkpoint, or a
        variable not in `fresh` is not finite.
      MismatchError: a variable not in `fresh` is missing, unknown or misshapen.
    """
    patterns = [re.compile(pattern) for pattern in fresh]

    def kept(flat: dict) -> dict:
        return {name: leaf for name, leaf in flat.items() if not is_fresh(name)}

    def is_fresh(name: str) -> bool:
        inside = name.partition("/")[2]
        return any(pattern.fullmatch(inside) for pattern in patterns)

    flat: dict = flatten(variables)

    def check(found: dict) -> None:
        either = {**flat, **flatten(found)}
        check_matches("init_fresh", fresh, [x.partition("/")[2] for x in either])
        try:
            name = f"init_from {path}"
            check_same_tree(kept(flatten(found)), kept(flat), name=name)
        except MismatchError as error:
            patterns_to_fit = (*fresh, *_patterns(error.paths))
            hint = f"init_fresh={patterns_to_fit} leaves these parameters out of it"
            raise MismatchError(f"{error}; {hint}", error.paths) from None

    found = load_variables(path, check)
    loaded = kept(flatten(found))
    check_finite(loaded, name=f"init_from {path}")
    for name, array in loaded.items():
        flat[name] = jax.make_array_from_callback(
            array.shape, flat[name].sharding, array.__getitem__
        )
    return {key: {} for key in variables} | unflatten(flat)


def _patterns(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns at most a few regexes for `init_fresh` that match these variables.

    Args:
      paths: start with the collection.
    """
    inside = {path.partition("/")[2] for path in paths}
    depth = max(path.count("/") for path in inside)
    while True:
        found = sorted({_pattern(path, depth) for path in inside})
        if len(found) <= LONGEST_HINT or depth <= 1:
            return tuple(found)
        depth -= 1


def _pattern(path: str, depth: int) -> str:
    """Returns a regex for the module of a variable, at most `depth` names deep."""
    modules = path.split("/")[:-1][:depth]
    return "/".join(map(re.escape, modules)) + "/.*" if modules else re.escape(path)


def _placed(shapes: Tree, mesh: Mesh, settings: MeshSettings) -> Tree:
    """Adds the shardings of `param_sharding` to shapes."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        param_sharding(shapes, mesh, settings),
    )
