import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training.toy_system import toy_config
from vis_jax.training import optimizer as optimizers

RATES = {"head/kernel": 0.1, "head/bias": 0.1, "norm/scale": 1.0}
DECAYS = {"head/kernel": 1.0, "head/bias": 1.0, "norm/scale": 0.0}


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    head = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    values = {"head": head, "norm": {"scale": rng.normal(size=2)}}
    return jax.tree.map(lambda leaf: (scale * leaf).astype(np.float32), values)


def flat(values):
    return {
        f"{outer}/{name}": np.asarray(leaf, np.float64)
        for outer, inner in values.items()
        for name, leaf in inner.items()
    }


def adamw(params, gradients, *, config, decay_at):
    """Loshchilov and Hutter, Algorithm 2, in plain NumPy and float64."""
    (beta1, beta2), eps = config.betas, config.eps
    params = flat(params)
    first = {name: np.zeros_like(leaf) for name, leaf in params.items()}
    second = {name: np.zeros_like(leaf) for name, leaf in params.items()}
    for count, gradient in enumerate(map(flat, gradients), start=1):
        norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
        shrink = min(1.0, config.clip_norm / norm)
        rate = config.learning_rate * 0.1 ** sum(count - 1 >= at for at in decay_at)
        for name, leaf in params.items():
            g = gradient[name] * shrink
            first[name] = beta1 * first[name] + (1 - beta1) * g
            second[name] = beta2 * second[name] + (1 - beta2) * g**2
            mean = first[name] / (1 - beta1**count)
            deviation = np.sqrt(second[name] / (1 - beta2**count))
            own = rate * RATES[name]
            decayed = leaf * (1 - own * config.weight_decay * DECAYS[name])
            params[name] = decayed - own * mean / (deviation + eps)
    return params


def sgd(params, gradients, *, config):
    """The update that torch.optim.SGD documents, in plain NumPy and float64."""
    params = flat(params)
    buffers = {name: np.zeros_like(leaf) for name, leaf in params.items()}
    for gradient in map(flat, gradients):
        norm = np.sqrt(sum((leaf**2).sum() for leaf in gradient.values()))
        for name, leaf in params.items():
            g = gradient[name] * min(1.0, config.clip_norm / norm)
            g = g + config.weight_decay * DECAYS[name] * leaf
            buffers[name] = config.momentum * buffers[name] + g
            own = config.learning_rate * RATES[name]
            params[name] = leaf - own * buffers[name]
    return params


def adam(params, gradients, *, betas, decay):
    """The update that torch.optim.Adam documents, in plain NumPy and float64."""
    params = flat(params)
    first = {name: np.zeros_like(leaf) for name, leaf in params.items()}
    second = {name: np.zeros_like(leaf) for name, leaf in params.items()}
    for count, gradient in enumerate(map(flat, gradients), start=1):
        for name, leaf in params.items():
            g = gradient[name] + decay * DECAYS[name] * leaf
            first[name] = betas[0] * first[name] + (1 - betas[0]) * g
            second[name] = betas[1] * second[name] + (1 - betas[1]) * g**2
            step = 0.02 * RATES[name] / (1 - betas[0] ** count)
            root = np.sqrt(second[name]) / np.sqrt(1 - betas[1] ** count)
            params[name] = leaf - step * first[name] / (root + 1e-8)
    return params


def build(params, **changes):
    config = toy_config(**changes)
    return config.optimizer, optimizers.build(
        config.optimizer, num_steps=config.num_steps, params=params
    )


def test_equals_adamw_written_by_hand():
    params = tree(0)
    # The first gradient is below the clipping norm, the others far above it.
    gradients = [tree(1, 0.01), tree(2), tree(3, 10.0), tree(4), tree(5)]
    config, optimizer = build(params, **{"optimizer.decay_at": (3,)})
    expected = adamw(params, gradients, config=config, decay_at=(3,))
    for name, leaf in flat(train(optimizer, params, gradients)).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=2e-6, err_msg=name)


def test_equals_sgd_written_by_hand():
    params = tree(0)
    gradients = [tree(1, 0.01), tree(2), tree(3, 10.0), tree(4), tree(5)]
    config = toy_config(
        **{
            "optimizer.decay_at": (),
            "optimizer.kind": "sgd",
            "optimizer.learning_rate": 0.1,
            "optimizer.weight_decay": 0.3,
        }
    ).optimizer
    assert config.momentum == 0.9
    optimizer = optimizers.build(config, num_steps=5, params=params)
    expected = sgd(params, gradients, config=config)
    for name, leaf in flat(train(optimizer, params, gradients)).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=2e-6, err_msg=name)


FIVE = [1.0200000, 1.0150162, 1.0129253, 1.0081795, 1.0027604]
ADAM = {
    "optimizer.kind": "adam",
    "optimizer.learning_rate": 0.02,
    "optimizer.decay_at": (),
    "optimizer.clip_norm": None,
}


def test_equals_adam_written_by_hand():
    params = tree(0)
    gradients = [tree(seed) for seed in range(1, 6)]
    own = {"optimizer.betas": (0.8, 0.95), "optimizer.weight_decay": 0.3}
    _, optimizer = build(params, **ADAM, **own)
    expected = adam(params, gradients, betas=(0.8, 0.95), decay=0.3)
    for name, leaf in flat(train(optimizer, params, gradients)).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=5e-6, err_msg=name)


def test_five_steps_of_adam_in_numbers():
    """Starts at a weight of 1; the formulas are those of torch.optim.Adam."""
    config, optimizer = build(
        {"weight": jnp.ones(())},
        **ADAM, **{"optimizer.weight_decay": 0.1, "optimizer.rates": ((".*", 1.0),)},
    )  # fmt: skip
    assert (config.betas, config.eps) == ((0.9, 0.999), 1e-8)
    params, found = {"weight": jnp.ones(())}, []
    state = optimizer.transform.init(params)
    for gradient in (-0.5, 0.5, -0.2, 0.1, 0.0):
        updates, state = optimizer.transform.update(
            {"weight": jnp.float32(gradient)}, state, params
        )
        params = optax.apply_updates(params, updates)
        found.append(float(params["weight"]))
    np.testing.assert_allclose(found, FIVE, rtol=1e-6)


def test_adam_decays_nothing_unless_asked_to():
    config, optimizer = build(tree(0), **ADAM, **{"optimizer.weight_decay": 0.0})
    assert type(config)().weight_decay == 0.0
    nothing = jax.tree.map(np.zeros_like, tree(0))
    for name, leaf in flat(train(optimizer, tree(0), [nothing])).items():
        np.testing.assert_array_equal(leaf, flat(tree(0))[name])


def train(optimizer, params, gradients):
    state = optimizer.transform.init(params)
    for gradient in gradients:
        updates, state = optimizer.transform.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_the_warm_up_factor_reaches_the_schedule():
    warmup = {"optimizer.warmup_steps": 10, "optimizer.warmup_factor": 1 / 3}
    config = toy_config(**warmup).optimizer
    optimizer = optimizers.build(config, num_steps=50, params=tree(0))
    got = float(optimizer.learning_rate(jnp.int32(0)))
    np.testing.assert_allclose(got, config.learning_rate / 3, rtol=1e-6)


def test_rate_zero_freezes_values_and_stops_their_gradient():
    params = tree(0)
    _, optimizer = build(params, **{"optimizer.rates": (("head/.*", 0.0), (".*", 1.0))})

    def loss(params):
        return sum(
            jnp.sum(leaf**2) for leaf in jax.tree.leaves(optimizer.freeze(params))
        )

    gradients = jax.jit(jax.grad(loss))(params)
    assert not gradients["head"]["kernel"].any()
    assert gradients["norm"]["scale"].all()
    state = optimizer.transform.init(params)
    updates, _ = optimizer.transform.update(gradients, state, params)
    assert not updates["head"]["kernel"].any()  # no weight decay either


def test_without_clipping_the_gradient_is_used_as_it_is():
    params = tree(0)
    _, optimizer = build(params, **{"optimizer.clip_norm": None})
    state = optimizer.transform.init(params)
    _, state = optimizer.transform.update(tree(1, 50.0), state, params)
    moments = next(part for part in state if hasattr(part, "mu"))
    np.testing.assert_allclose(
        moments.mu["norm"]["scale"], 0.1 * tree(1, 50.0)["norm"]["scale"], rtol=1e-6
    )


def test_what_starts_late_has_a_schedule_of_its_own():
    params = tree(0)
    changes = {
        "num_steps": 12, "optimizer.kind": "sgd", "optimizer.momentum": 0.0,
        "optimizer.schedule": "poly", "optimizer.weight_decay": 0.0,
        "optimizer.clip_norm": None, "optimizer.decay_at": (),
        "optimizer.warmup_steps": 0, "optimizer.learning_rate": 1.0,
        "optimizer.rates": ((".*", 1.0),), "optimizer.late": (("head/.*", 2, 1),),
    }  # fmt: skip
    _, optimizer = build(params, **changes)
    state, made = optimizer.transform.init(params), []
    for _ in range(4):
        updates, state = optimizer.transform.update(tree(1), state, params)
        ratio = jax.tree.map(lambda u, g: float(np.mean(-u / g)), updates, tree(1))
        made.append((ratio["head"]["bias"], ratio["norm"]["scale"]))
    usual = [(1 - count / 12) ** 0.9 for count in range(4)]
    np.testing.assert_allclose([x for _, x in made], usual, rtol=1e-5)
    # Two updates without a change, one of warm-up, then 9 that fall.
    np.testing.assert_allclose([x for x, _ in made], [0, 0, 1, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay_at": (5, 3)}, "optimizer.decay_at: expected ascending steps, got"),
        (
            {"decay_at": (), "schedule": "poly", "warmup_steps": 6},
            "optimizer.warmup_steps: expected less than num_steps = 6, got 6",
        ),
        (
            {"decay_at": (), "schedule": "poly", "late": (("head/.*", 4, 2),)},
            "optimizer.late: expected warm-ups that end before num_steps = 6, got ('he",
        ),
    ],
)
def test_a_schedule_that_does_not_fit_the_run_is_named(changes, message):
    config = toy_config(**{f"optimizer.{key}": x for key, x in changes.items()})
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizers.check_schedule(config.optimizer, config.num_steps)


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="norm/scale"):
        build(tree(0), **{"optimizer.rates": (("head/.*", 0.1),)})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schedule", "linear", "expected 'step' or 'cosine' or 'poly', got"),
        ("learning_rate", -1.0, "learning_rate: expected float, at least 0, got -1.0"),
        ("kind", "lamb", "kind: expected one of ['adam', 'adamw', 'sgd'], got 'lamb'"),
        ("momentum", 0.5, "optimizer.momentum: no such field with kind 'adamw'"),
        ("betas", (0.9, 1.0), "betas: expected (float, float), at least 0 and below 1"),
        ("warmup_factor", -0.5, "warmup_factor: expected float, at least 0 and below"),
        ("clip_norm", 0.0, "clip_norm: expected float or None, above 0, got 0.0"),
        ("rates", ((".*", -1.0),), "rates: expected ((str, float), ..), at least 0"),
        ("schedule", "cosine", "optimizer.decay_at: expected () with optimizer.sched"),
        ("warmup_factor", 0.5, "optimizer.warmup_factor: expected 0.0 with optimizer."),
        ("late", (("a", 1, 2),), "late: expected () with optimizer.schedule 'step'"),
    ],
)
def test_values_out_of_range_are_errors(field, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(tree(0), **{f"optimizer.{field}": value})


def test_the_momentum_of_sgd_is_below_one():
    with pytest.raises(ValueError, match=r"momentum: expected float, .* got 1\.0"):
        toy_config(**{"optimizer.kind": "sgd", "optimizer.momentum": 1.0})
