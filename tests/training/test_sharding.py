"""Parts of a state by device; eight devices compute the same as one."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from tests.training.mesh_run import MESHES, PARTS, detector, toy
from tests.training.processes import ROOT
from tests.training.toy_run import evaluate
from vis_jax.settings import read_settings
from vis_jax.training.sharding import (
    MeshSettings,
    mesh_shape,
    param_sharding,
    whole,
)

MESH = AbstractMesh((2, 4), ("data", "fsdp"))


def specs(shapes: dict, **fields) -> dict:
    """The axes of arrays by path as a mesh of 2 x 4 devices divides them."""
    settings = read_settings(MeshSettings, {"fsdp": 4, "least": 1, **fields}, "mesh")
    leaves = {n: jax.ShapeDtypeStruct(s, np.float32) for n, s in shapes.items()}
    found = param_sharding({"params": {"a": leaves}}, MESH, settings)
    return {name: one.spec for name, one in found["params"]["a"].items()}


def test_the_longest_axis_that_can_be_divided_is():
    found = specs({"k": (3, 3, 8, 16), "odd": (3, 7), "tie": (8, 2, 8), "long": (9, 4)})
    assert found == {
        "k": PartitionSpec(None, None, None, "fsdp"),
        "odd": PartitionSpec(),
        "tie": PartitionSpec(None, None, "fsdp"),
        "long": PartitionSpec(None, "fsdp"),
    }


def test_small_arrays_are_on_every_device():
    found = specs({"bias": (8,), "kernel": (8, 2)}, least=9)
    assert found == {"bias": PartitionSpec(), "kernel": PartitionSpec("fsdp")}


def test_the_first_rule_that_matches_a_path_decides():
    rules = [["a/k", 0], ["a/(k|b)", None]]
    found = specs({"k": (4, 8), "b": (8,), "c": (8,)}, rules=rules)
    assert found["k"] == PartitionSpec("fsdp")
    assert found["b"] == PartitionSpec()
    assert found["c"] == PartitionSpec("fsdp")
    with pytest.raises(ValueError, match=r"mesh.rules: .* a/k \[4, 6\] .* got 1 of 'a"):
        specs({"k": (4, 6)}, rules=[["a/k", 1]])


@pytest.mark.parametrize(
    ("fields", "devices", "expected"),
    [({}, 8, (8, 1)), ({"fsdp": 4}, 8, (2, 4)), ({"data": 2, "fsdp": 4}, 8, (2, 4))],
)
def test_the_mesh_has_all_devices(fields, devices, expected):
    assert mesh_shape(MeshSettings(**fields), devices) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fsdp": 3}, "mesh.fsdp: expected a divisor of .* 8, got 3"),
        ({"data": 4, "fsdp": 4}, "mesh.data: expected -1 or 2, .* 8, got 4"),
        ({"data": 0}, "mesh.data: expected -1 or at least 1, got 0"),
        ({"rules": (("(", None),)}, r"mesh.rules: expected regexes, got '\('"),
    ],
)
def test_a_mesh_of_other_devices_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        mesh_shape(read_settings(MeshSettings, fields, "mesh"), 8)


def test_what_every_device_has_stays_there():
    leaf = jax.numpy.ones(3)
    assert whole({"a": leaf})["a"] is leaf


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The report of `mesh_run` on eight devices, and its folder."""
    folder = tmp_path_factory.mktemp("meshes")
    toy(folder, "one", {}, num_steps=3)  # for eight devices to go on with
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.mesh_run", str(folder)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same run on one device."""
    return toy(tmp_path_factory.mktemp("one"), "whole", {})


def _assert_near(found: dict, expected: dict) -> None:
    for step, loss in found["losses"].items():
        np.testing.assert_allclose(loss, expected["losses"][int(step)], rtol=1e-5)
    for name in ("kernel", "mean", "var"):  # statistics of the clips of all devices
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MESHES)
def test_every_mesh_computes_what_one_device_does(eight, one, name):
    found = eight[0][name]
    assert len(found["losses"]) == 6
    _assert_near(found, one)
    assert found["shard"] == [3, 8 // MESHES[name].get("fsdp", 1)]


def test_checkpoints_pass_between_meshes(eight, one, tmp_path):
    """From one device to eight, there to another mesh, and back to one."""
    report, folder = eight
    assert list(report["from one"]["losses"]) == ["4", "5", "6"]
    _assert_near(report["from one"], one)
    assert report["kept"]  # restored under another mesh, with the same bits
    back = toy(folder, "fsdp=8", {}, num_steps=6)
    assert back["losses"] == {}
    assert back["kernel"] == report["fsdp=8"]["kernel"]


def test_an_evaluation_on_eight_devices_has_the_bits_of_one(eight, tmp_path):
    """A video on each device."""
    evaluate(str(tmp_path))
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files["results.json"]) > 1000
    found = (eight[1] / "evaluation").iterdir()
    assert {path.name: path.read_bytes() for path in found} == files


def test_microbatches_and_averages_are_the_same_on_eight_devices(eight, tmp_path):
    expected = toy(tmp_path, "parts", {}, clips=16, **PARTS)
    _assert_near(eight[0]["parts"], expected)
    assert eight[0]["parts"]["shard"] == [3, 2]  # of the average


def test_a_detector_has_the_loss_and_the_statistics_of_one_device(eight):
    """Includes batch norm; test_end_to_end trains IFR on eight devices."""
    found, expected = eight[0]["detector"], detector(MeshSettings())
    assert found.keys() == expected.keys()
    assert len(found) > 1
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)


def test_an_update_of_the_toy_system_by_hand(eight):
    """One of 2 x 4 devices; two clips of 6 x 6 pixels and 8 features each."""
    found = eight[0]["simulated"]
    # 3 x 8 and 3 x 8 weights and 2 x 8 statistics divided by 4; a count, a constant.
    assert found["stored"]["parameters"] == 4 * (24 + 24 + 16) // 4 + 8
    assert found["stored"]["average"] == found["stored"]["parameters"] - 4
    # Two moments of each weight, the counts of the moments and of the schedule.
    assert found["stored"]["optimiser"] == 4 * 2 * 48 // 4 + 8
    # XLA keeps of the batch what is read, images and sizes; a key and a step.
    state = sum(
        found["stored"][name] for name in ("parameters", "average", "optimiser")
    )
    assert found["arguments"] == state + 2 * (6 * 6 * 3 + 8) + 8 + 4
    # Products of 16 colours with 3 x 8 weights, forward and for the weights.
    assert found["flops"] == 2 * (2 * 16 * 3 * 8) / 8
    # Three quarters of each divided array come from the others; twice seven eighths
    # of each gradient are sent to add it up. Beyond that, means of batch norm.
    assert 1 <= found["sent"]["all-gather"] / (4 * 64 * 3 / 4) < 2
    assert 1 <= found["sent"]["all-reduce"] / (2 * 4 * 48 * 7 / 8) < 2
    # At least the gathered variables, and a quarter of the gradients.
    assert 4 * 64 + 4 * 48 // 4 < found["estimated"] < 2 * found["working"]
