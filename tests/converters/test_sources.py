"""Weights as people have them: folders, shards, averages, prefixes."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.converters.assemble import mapping, program, torch_pickle
from vis_jax.converters.files import read_source, read_weights
from vis_jax.converters.load import convert_tensors

DATA = Path(__file__).parent / "data"
ONE = {"w": np.arange(4, dtype=np.float32), "v": np.ones((2, 3), np.float32)}
TWO = {name: x + 10 for name, x in ONE.items()}


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def write_safetensors(path, arrays):
    header, data = {}, b""
    for name, x in arrays.items():
        place = [len(data), len(data) + x.nbytes]
        header[name] = {"dtype": "F32", "shape": [*x.shape], "data_offsets": place}
        data += x.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def shards(folder, index="model.safetensors.index.json"):
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, key in zip(names, ONE, strict=True):
        write_safetensors(folder / name, {key: ONE[key]})
    weights = dict(zip(ONE, names, strict=True))
    (folder / index).write_text(json.dumps({"weight_map": weights}))
    return folder / index


def test_a_folder_of_hugging_face(tmp_path):
    write_safetensors(tmp_path / "model.safetensors", ONE)
    config = {"model_type": "mask2former", "num_queries": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        source = read_source(path)
        same(source.tensors, ONE)
        assert source.config == config
        assert source.files == (tmp_path / "model.safetensors",)


def test_a_config_json_of_another_tool_does_not_count(tmp_path):
    path = write_safetensors(tmp_path / "model.safetensors", ONE)
    (tmp_path / "config.json").write_text('{"seed": 0}')
    assert read_source(path).config is None


@pytest.mark.parametrize("whole", [True, False])
def test_shards_with_an_index(tmp_path, whole):
    index = shards(tmp_path)
    source = read_source(tmp_path if whole else index)
    same(source.tensors, ONE)
    assert len(source.files) == 2


def test_wrong_shards_are_errors(tmp_path):
    index = shards(tmp_path)
    second = tmp_path / "model-00002-of-00002.safetensors"
    with pytest.raises(ValueError, match="one of 2 shards; give their folder"):
        read_source(second)
    write_safetensors(second, {"u": ONE["w"]})
    with pytest.raises(ValueError, match="1 tensors are not in their shards.*'v'"):
        read_source(index)
    write_safetensors(second, ONE)
    with pytest.raises(ValueError, match="'w': another shard has it, too"):
        read_source(index)
    second.unlink()
    with pytest.raises(ValueError, match="1 of 2 shards are missing.*00002-of-00002"):
        read_source(index)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", 3, "a/b"])
def test_an_index_names_files_beside_it(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(ValueError, match="weight_map: expected file names"):
        read_source(index)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".bin", ".pkl"])
@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_pytorchs_files_under_all_their_suffixes(tmp_path, name, suffix):
    path = shutil.copy(DATA / name, tmp_path / f"model{suffix}")
    same(read_weights(path), read_weights(DATA / name))


def test_a_pickle_of_tensors(tmp_path):
    """As detectron2's scripts write Swin: pickle.dump of what torch.load gave."""
    path = tmp_path / "swin.pkl"
    path.write_bytes(program(mapping({"model": torch_pickle(ONE)})))
    same(read_weights(path), ONE)


@pytest.mark.parametrize("name", ["model_ema", "state_dict_ema", "ema_state"])
def test_averaged_weights_are_taken_alone_or_by_key(tmp_path, name):
    path = write_pickle(tmp_path / "a.pkl", {name: TWO, "epoch": 3})
    source = read_source(path)
    same(source.tensors, TWO)
    assert source.notes == (f"the weights under {name!r}",)
    write_pickle(path, {"model": ONE, name: TWO})
    source = read_source(path)
    same(source.tensors, ONE)
    assert source.notes == (f"the weights under 'model', not [{name!r}] (see --key)",)
    source = read_source(path, key=name)
    same(source.tensors, TWO)
    assert source.notes == (f"the weights under {name!r}",)
    with pytest.raises(ValueError, match=r"--key: expected one of \['model', .*'no'"):
        read_source(path, key="no")


@pytest.mark.parametrize("prefix", ["module.", "model.", "ema_model.", "model.module."])
def test_a_prefix_of_all_names_is_taken_off(tmp_path, prefix):
    named = {f"{prefix}{name}": x for name, x in ONE.items()}
    source = read_source(write_pickle(tmp_path / "a.pkl", {"state_dict": named}))
    same(source.tensors, ONE)
    assert source.notes == (f"the names without their prefix {prefix!r}",)


def test_names_of_hugging_face_keep_their_prefix(tmp_path):
    named = {"model.pixel_level_module.a": ONE["w"], "model.b": ONE["v"]}
    same(read_weights(write_pickle(tmp_path / "a.pkl", named)), named)


def test_one_prefix_of_several(tmp_path):
    named = {f"ema_model.{name}": x for name, x in TWO.items()}
    named |= {f"online_model.{name}": x for name, x in ONE.items()}
    path = write_pickle(tmp_path / "a.pkl", named)
    source = read_source(path, prefix="ema_model.")
    same(source.tensors, TWO)
    assert set(source.outside) == {"online_model.w", "online_model.v"}
    assert source.notes == ("the names that begin with 'ema_model.'",)
    with pytest.raises(ValueError, match="--prefix: no name begins with 'x.'"):
        read_source(path, prefix="x.")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04" + bytes(100), "the end of the zip archive is missing"),
    ],
)
def test_what_often_stands_in_place_of_weights(tmp_path, content, match):
    for suffix in ("pkl", "pth", "safetensors"):
        path = tmp_path / f"model.{suffix}"
        path.write_bytes(content)
        if suffix != "safetensors" or not content.startswith(b"PK"):
            with pytest.raises(ValueError, match=match):
                read_source(path)


def test_a_file_without_tensors_names_what_it_has(tmp_path):
    path = write_pickle(tmp_path / "a.pkl", {"generator": {"w": ONE["w"]}, "epoch": 3})
    with pytest.raises(ValueError, match="no tensors, but generator, epoch; --key"):
        read_source(path)
    same(read_source(path, key="generator").tensors, {"w": ONE["w"]})


def test_many_misfits_are_counted_by_pattern_with_the_kind_that_fits(tmp_path):
    from vis_jax.converters.load import convert_source

    names = [
        f"layer{i}.{j}.conv{k}.weight" for i in (1, 2) for j in (0, 1) for k in (1, 2)
    ]
    source = read_source(
        write_pickle(tmp_path / "a.pkl", {n: np.zeros((1, 1, 1, 1)) for n in names})
    )
    with pytest.raises(ValueError, match="8 misfits") as error:
        convert_source(source, {}, "mask2former")
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("no rule, and 7 like it")
    assert lines[2] == "--kind resnet knows 8 of the 8 names, mask2former 0"


def test_a_list_of_misfits_is_short():
    names = {f"{chr(97 + i)}.x": np.zeros(1) for i in range(20)}
    with pytest.raises(ValueError, match="20 misfits") as error:
        convert_tensors(names, {}, "resnet")
    lines = str(error.value).splitlines()
    assert len(lines) == 14
    assert lines[-1].strip() == "and 8 others"
