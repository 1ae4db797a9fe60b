import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from vis_jax.converters.files import read_weights

DATA = Path(__file__).parent / "data"

EXPECTED = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "b": np.array([2, 4], np.float32),
    "c": np.arange(8, dtype=np.float32),
    "n": np.array(7),
    "p": np.array([0.5, 1.5], np.float16),
}


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "plain.safetensors"])
def test_reads_what_pytorch_wrote(name):
    tensors = read_weights(DATA / name)
    assert set(tensors) == set(EXPECTED)
    for key, expected in EXPECTED.items():
        np.testing.assert_array_equal(tensors[key], expected, strict=True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_pickles_of_numpy_arrays(tmp_path, protocol):
    arrays = {
        "w": np.asfortranarray(EXPECTED["a"]),
        "big": np.arange(3, dtype=">f4"),
        "scalar": np.float32(2.0),
    }
    path = tmp_path / "model.pkl"
    wrapped = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(wrapped, protocol=protocol))
    tensors = read_weights(path)
    np.testing.assert_array_equal(tensors["w"], EXPECTED["a"])
    np.testing.assert_array_equal(tensors["big"], [0, 1, 2])


class Malicious:
    """Runs a command when it is unpickled by `pickle.load`."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_a_pickle_that_names_code_is_refused_and_not_run(tmp_path, suffix):
    trace, path = tmp_path / "ran", tmp_path / f"evil{suffix}"
    evil = {"model": {"w": Malicious(f"touch {trace}")}}
    path.write_bytes(pickle.dumps(evil))
    with pytest.raises(ValueError, match=r"evil.*(posix|nt)\.system is not part"):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "harmful",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"ctorch.storage\n_load_from_bytes\n(S'x'\ntR.",
        b"ccollections\nOrderedDict.fromkeys\n(S'x'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.",
    ],
)
def test_other_names_are_refused(tmp_path, harmful):
    path = tmp_path / "model.pkl"
    path.write_bytes(harmful)
    with pytest.raises(ValueError, match="is not part of a file of weights"):
        read_weights(path)


def test_arrays_of_objects_are_refused(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"w": np.array([{}, None], dtype=object)}))
    with pytest.raises(ValueError, match="model.pkl.*numbers"):
        read_weights(path)


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "plain.safetensors"])
def test_a_cut_file_is_an_error_that_names_it(tmp_path, name):
    whole = (DATA / name).read_bytes()
    for length in (0, 6, len(whole) // 2, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=name):
            read_weights(tmp_path / name)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    # In this pickle the shape (2,) of `b` follows its offset, 2.
    whole = (DATA / "legacy.pth").read_bytes()
    changed = whole.replace(b"K\x02K\x02\x85", b"K\x02K\x09\x85")
    assert changed != whole
    (tmp_path / "model.pth").write_bytes(changed)
    with pytest.raises(ValueError, match=r"\(9,\) reaches beyond storage"):
        read_weights(tmp_path / "model.pth")


def test_safetensors_offsets_outside_the_file_are_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"w": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(ValueError, match=r"w: offsets 0, 8 outside the file"):
        read_weights(path)


def test_unknown_suffix_and_missing_file_are_errors(tmp_path):
    with pytest.raises(ValueError, match="expected one of"):
        read_weights(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="no such file"):
        read_weights(tmp_path / "model.pth")


def test_a_file_without_tensors_is_an_error(tmp_path):
    path = shutil.copy(DATA / "zip.pth", tmp_path / "model.pkl")
    Path(path).write_bytes(pickle.dumps({"model": {}}))
    with pytest.raises(ValueError, match="holds no tensors"):
        read_weights(path)
