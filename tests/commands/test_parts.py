import jax
import pytest

from data_pipeline.datasets.dataset import Category
from tests.recipes import recipe
from vis_jax.commands import parts
from vis_jax.commands.run_settings import with_classes

CATEGORIES = (Category(2, "cat"), Category(5, "dog"))


def test_classes_are_written_once_and_read_again(tmp_path):
    parts.write_categories(tmp_path / "run", CATEGORIES)
    parts.write_categories(tmp_path / "run", CATEGORIES)
    assert parts.read_categories(tmp_path / "run") == [(2, "cat"), (5, "dog")]
    for other in (CATEGORIES[:1], CATEGORIES[::-1], (*CATEGORIES, Category(7, "elk"))):
        with pytest.raises(ValueError, match=r"categories\.json: expected the categor"):
            parts.write_categories(tmp_path / "run", other)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["categories.json"]


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "{}",
        "null",
        '[{"id": "x", "name": "cat"}]',
        '[{"id": 1e999, "name": "cat"}]',
        '[{"id": true, "name": "cat"}]',
        '[{"id": 1, "name": 2}]',
        '[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]',
        "[",
        None,
    ],
)
def test_damaged_classes_are_named(tmp_path, text):
    if text is not None:
        (tmp_path / "categories.json").write_text(text)
    with pytest.raises(ValueError, match=r"categories\.json: expected"):
        parts.read_categories(tmp_path)


def test_the_data_set_gives_the_number_of_classes():
    open_ended = recipe("ifr_shapes", "debug", {"model.num_classes": 0})
    config = with_classes(open_ended, 3)
    assert config.model.num_classes == 3
    assert open_ended.model.num_classes == 0
    with pytest.raises(ValueError, match="expected 4, the categories of the data set"):
        with_classes(config, 4)


def test_what_the_user_says_of_the_compilation_cache_holds(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    for value in ("", "/elsewhere"):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", value)
        parts.keep_compilations("run")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    parts.keep_compilations(None)
    assert jax.config.jax_compilation_cache_dir == before


def test_predict_keeps_its_programs_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    parts.keep_user_compilations()
    expected = str(tmp_path / "vis_jax" / "compilations")
    assert jax.config.jax_compilation_cache_dir == expected
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/someone")
    parts.keep_user_compilations()
    expected = "/home/someone/.cache/vis_jax/compilations"
    assert jax.config.jax_compilation_cache_dir == expected
    jax.config.update("jax_compilation_cache_dir", before)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    parts.keep_user_compilations()
    assert jax.config.jax_compilation_cache_dir == before
