import jax
import pytest
from ml_collections import ConfigDict

from data_pipeline.datasets.dataset import Category
from vis_jax.commands import settings

CATEGORIES = (Category(2, "cat"), Category(5, "dog"))


def test_classes_are_written_once_and_read_again(tmp_path):
    settings.write_categories(tmp_path / "run", CATEGORIES)
    settings.write_categories(tmp_path / "run", CATEGORIES)
    assert settings.read_categories(tmp_path / "run") == [(2, "cat"), (5, "dog")]
    for other in (CATEGORIES[:1], CATEGORIES[::-1], (*CATEGORIES, Category(7, "elk"))):
        with pytest.raises(ValueError, match=r"categories\.json: expected the categor"):
            settings.write_categories(tmp_path / "run", other)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["categories.json"]


@pytest.mark.parametrize(
    "text", ["[1]", "{}", '[{"id": "x", "name": "cat"}]', "[", None]
)
def test_damaged_classes_are_named(tmp_path, text):
    if text is not None:
        (tmp_path / "categories.json").write_text(text)
    with pytest.raises(ValueError, match=r"categories\.json: expected"):
        settings.read_categories(tmp_path)


def test_the_data_set_gives_the_number_of_classes():
    config = ConfigDict(dict(model=dict(num_classes=0)))
    settings.set_classes(config, 3)
    assert config.model.num_classes == 3
    with pytest.raises(ValueError, match="expected 4, the categories of the data set"):
        settings.set_classes(config, 4)


def test_what_the_user_says_of_the_compilation_cache_holds(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    for value in ("", "/elsewhere"):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", value)
        settings.keep_compilations("run")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    settings.keep_compilations(None)
    assert jax.config.jax_compilation_cache_dir == before
