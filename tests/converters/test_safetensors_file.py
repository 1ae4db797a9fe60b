"""Safetensors that are written are read again, also by other tools."""

import json

import numpy as np
import pytest

from vis_jax.converters.files import read_weights
from vis_jax.converters.safetensors_file import write_safetensors

TENSORS = {
    "params/b/kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "params/a": np.array(2.5, np.float32),
    "constants/table": np.array([[3, -1]], np.int32),
    "constants/none": np.zeros((0, 4), np.float16),
    "constants/flags": np.array([True, False, True]),
}


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS)
    found = read_weights(path)
    assert found.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(found[name], value)
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)


def test_the_numbers_lie_one_after_the_other_from_a_multiple_of_8(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    del header["__metadata__"]
    assert list(header) == sorted(TENSORS)
    end = 0
    for name, entry in header.items():
        begin, after = entry["data_offsets"]
        assert begin == end and after - begin == TENSORS[name].nbytes
        end = after
    assert len(content) == 8 + length + end


def test_a_dtype_that_the_format_lacks_is_named(tmp_path):
    with pytest.raises(ValueError, match="params/z: expected one of .* got complex64"):
        write_safetensors(tmp_path / "x", {"params/z": np.zeros(2, np.complex64)})
    assert not list(tmp_path.iterdir())
