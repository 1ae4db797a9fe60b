import jax
import jax.numpy as jnp
import numpy as np

from vis_jax.evaluate import memory
from vis_jax.evaluate.memory import machine_bytes, peak_bytes

X = jax.ShapeDtypeStruct((1000,), jnp.float32)  # 4,000 bytes


def _peak(function, *arguments):
    return peak_bytes(jax.jit(function).trace(*arguments).jaxpr)


def test_what_is_not_used_again_gives_its_memory_back():
    # The input, and two results at a time.
    assert _peak(lambda x: jnp.exp(jnp.exp(jnp.exp(jnp.exp(x)))), X) == 3 * 4000
    # The first result is used last.
    assert _peak(lambda x: (y := jnp.exp(x)) + jnp.exp(jnp.exp(y)), X) == 4 * 4000
    assert _peak(lambda x: x, X) == 4000


def test_a_loop_keeps_what_it_stacks_and_one_turn():
    def loop(x):
        def turn(total, row):
            # 10 numbers wide: one turn holds two such results at once.
            return total, jnp.exp(jnp.exp(jnp.tile(row[None], (10, 1)))).sum(axis=0)

        return jax.lax.scan(turn, 0.0, x)

    x = jax.ShapeDtypeStruct((50, 20), jnp.float32)
    kept = 2 * 50 * 20 * 4
    found = _peak(loop, x)
    assert kept + 2 * 10 * 20 * 4 <= found <= kept + 3 * 10 * 20 * 4 + 200


def test_the_memory_of_a_container_is_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CONTAINER_LIMIT", tmp_path / "none")
    whole = machine_bytes()
    assert whole > 1e8
    (tmp_path / "limit").write_text("1000000\n")
    monkeypatch.setattr(memory, "CONTAINER_LIMIT", tmp_path / "limit")
    assert machine_bytes() == 1_000_000
    (tmp_path / "limit").write_text("max\n")
    assert machine_bytes() == whole

    class Device:
        def memory_stats(self):
            return {"bytes_limit": 5}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert np.isclose(machine_bytes(), 5)
