"""Report of `doctor` on machines that lack something."""

import importlib.metadata
import sys

import jax

from tests.command_line import call
from vis_jax.commands import doctor


def test_a_whole_machine_has_a_line_for_each_thing(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "LITTLE", 0.0)
    outcome = call("doctor", "--workdir", tmp_path / "new" / "run")
    assert outcome.code == 0, outcome
    lines = outcome.out.splitlines()
    assert all(line.startswith("  ") for line in lines)
    names = [line.split()[0] for line in lines]
    for name in ("vis_jax", "packages", "machine", "plugins", "disk", "temporary"):
        assert name in names
    devices = [line for line in lines if line.startswith("  devices")]
    assert len(devices) == jax.local_device_count()
    assert f"jax {jax.__version__}" in outcome.out
    assert f"GB free in {tmp_path}\n" in outcome.out


def test_what_does_not_work_is_marked_and_ends_with_2(tmp_path, monkeypatch):
    def no_devices():
        raise RuntimeError("Unable to initialize\nbackend 'tpu'")

    version = importlib.metadata.version
    absent = {"av", "tensorflow", "tensorflow-cpu"}

    def some_version(name):
        if name in absent:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", some_version)
    monkeypatch.setattr(jax, "local_devices", no_devices)
    monkeypatch.setattr(doctor, "LITTLE", 1e9)
    monkeypatch.setitem(sys.modules, "av", None)
    outcome = call("doctor", "--workdir", tmp_path)
    assert outcome.code == 2
    marked = [line for line in outcome.out.splitlines() if line.startswith("! ")]
    texts = [" ".join(line.split()) for line in marked]
    assert texts[:3] == [
        "! packages tensorflow-cpu is not installed",
        "! packages tensorflow is not installed",
        "! packages av is not installed",
    ]
    assert texts[3] == "! devices RuntimeError: Unable to initialize backend 'tpu'"
    assert texts[4].startswith("! videos ModuleNotFoundError: ")
    assert [text.split()[1] for text in texts[5:]] == ["disk", "temporary"]
    assert outcome.err.startswith(
        "error: doctor: expected all checks to pass, got ! at"
    )


def test_gpus_that_jax_does_not_see_are_told(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    *_, last = doctor.devices()
    assert not last.fine
    assert last.text.startswith("the machine has GPUs (2), JAX sees none")


def test_extras_say_what_they_lack(monkeypatch):
    requirements = {
        "vis_jax": [
            "numpy>=2", 'jax2onnx>=0.17; extra == "onnx"', "onnx; extra == 'onnx'",
            'pytest>=8; extra == "dev"', "jax[cuda12]; extra == 'cuda12'",
        ],
        "jax": ['jax-plugin[more]<2; extra == "cuda12"', 'x; extra == "tpu"'],
    }  # fmt: skip
    monkeypatch.setattr(importlib.metadata, "requires", requirements.get)
    there = {"pytest": "9", "jax": "1", "onnx": "1"}
    monkeypatch.setattr(doctor, "version_of", there.get)
    found = [(line.name, line.text, line.fine) for line in doctor.extras()]
    assert found == [
        ("[cuda12]", "needs jax-plugin", True),
        ("[dev]", "installed", True),
        ("[onnx]", "needs jax2onnx", True),
    ]
