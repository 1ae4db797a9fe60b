"""Deterministic parameters and inputs for the golden fixtures (numpy only).

Parameter values depend only on (name, shape, seed, rule, gain, offset), all listed in
the manifest of a case, so a full set of "checkpoint" weights needs no download:

    import json, golden_weights as gw
    manifest = json.load(open("ops.json"))
    state = gw.state_dict(manifest)  # {official parameter name: numpy array}
"""

import zlib

import numpy as np


def uniform(name, shape, seed):
    """float64 array, uniform in [-1, 1), a function of (name, shape, seed)."""
    rng = np.random.Generator(
        np.random.PCG64(zlib.crc32(name.encode()) + 1000003 * seed)
    )
    return rng.random(tuple(shape)) * 2 - 1


def default_rule(name, shape):
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return "running_var"
    if leaf == "running_mean":
        return "running_mean"
    if len(shape) >= 2:
        return "fan_in"
    if leaf in ("weight", "scale"):
        return "scale"
    return "bias"


def make_param(name, shape, dtype="float32", seed=0, rule=None, gain=1.0, offset=0.0):
    """One parameter. value = offset + gain * (deviation), see the rules below.

    fan_in        u * sqrt(3 / prod(shape[1:]))   (two or more axes)
    scale         1 + 0.1 u                       (others, '.weight' and '.scale')
    bias          0.1 u                           (all others)
    running_mean  0.1 u
    running_var   1 + 0.5 u

    The result is gain * value + offset, computed in float64 and cast at the end.
    """
    shape = tuple(int(s) for s in shape)
    rule = rule or default_rule(name, shape)
    u = uniform(name, shape, seed)
    if rule == "fan_in":
        v = u * np.sqrt(3.0 / float(np.prod(shape[1:])))
    elif rule == "scale":
        v = 1 + 0.1 * u
    elif rule in ("bias", "running_mean"):
        v = 0.1 * u
    elif rule == "running_var":
        v = 1 + 0.5 * u
    else:
        raise ValueError(f"{name}: rule {rule!r} has no generated value")
    return np.asarray(gain * v + offset).astype(dtype)


def make_image(name, shape, seed, cell=16, coarse=1.0, fine=0.5):
    """Images (..., C, H, W): blocks of `cell` pixels of one random value, and noise."""
    *lead, h, w = shape
    ch, cw = -(-h // cell), -(-w // cell)
    blocks = uniform(name + "/coarse", (*lead, ch, cw), seed)
    blocks = np.repeat(np.repeat(blocks, cell, -2), cell, -1)[..., :h, :w]
    return (
        coarse * blocks + fine * uniform(name + "/fine", tuple(shape), seed)
    ).astype("float32")


def state_dict(manifest, group=None):
    """All generated parameters of a manifest, or of one of its groups, by name.

    Entries with rule 'keep' are constants of the architecture (index tables, counters,
    class weights): they are not generated; those with a 'value' are taken from there.
    """
    out = {}
    for gname, entries in manifest["parameters"].items():
        if group is not None and gname != group:
            continue
        for e in entries:
            if e["rule"] == "keep":
                if "value" in e:
                    out[e["name"]] = np.asarray(e["value"], dtype=e["dtype"]).reshape(
                        e["shape"]
                    )
                continue
            out[e["name"]] = make_param(
                e["name"],
                e["shape"],
                e["dtype"],
                manifest["seed"],
                e["rule"],
                e.get("gain", 1.0),
                e.get("offset", 0.0),
            )
    return out
