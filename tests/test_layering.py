"""Who may import whom, and what runs without which library."""

import ast
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the lowest layer to the highest; those of one layer do not import each other.
LAYERS = (
    {"structures", "typing", "params", "settings", "paths", "checkpoints"},
    {"ops"},
    {"layers", "losses"},
    {"backbones"},
    {"detectors", "association", "trackers"},
    {"systems"},
    {"training", "evaluate", "predict", "export"},
    {"compare"},
    {"__main__", "api", "commands", "loading", "main", "tracking"},
)
# These import nothing of ours but themselves ..
ALONE = {"formats", "visualize", "converters"}
# .. and these only what reads and writes files, or measures what they hold. All of them
# serve the upper layers.
ON_FORMATS = {
    "metrics": {"formats"},
    "results": {"formats", "metrics"},
    "report": {"formats", "metrics", "results", "visualize"},
    "scoring": {"formats", "metrics", "report"},
}
SERVICES = ALONE | ON_FORMATS.keys()
UPPER = set().union(*LAYERS[-3:])
# The modules that packages without JAX share with the models.
SHARED = ("vis_jax.settings.", "vis_jax.paths.", "vis_jax.formats.")
# `structures` names its arrays by `typing`.
WITHIN_A_LAYER = {
    ("structures", "typing"),
    ("__main__", "main"),
    *(("main", "commands"), ("api", "commands"), ("api", "main"), ("api", "tracking")),
    *(("loading", "api"), ("loading", "commands"), ("loading", "tracking")),
}
OURS = {"vis_jax", "data_pipeline", "configs", "benchmarks", "tests"}


def _modules(package: str) -> list[Path]:
    folder = ROOT / package
    if folder.is_dir():
        return sorted(folder.rglob("*.py"))
    return [folder.with_suffix(".py")]


def _imports(path: Path) -> set[str]:
    """Full names of the modules a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _ours(path: Path) -> set[str]:
    names = {name for name in _imports(path) if name.split(".")[0] in OURS}
    return names - {"vis_jax.__version__"}  # in the file that imports nothing


def _unit(name: str) -> str:
    """The package or file of vis_jax that a module name lies in."""
    return name.split(".")[1]


def _layer(unit: str) -> int:
    for index, layer in enumerate(LAYERS):
        if unit in layer:
            return index
    raise AssertionError(f"vis_jax/{unit} has no place in LAYERS")


def _may_import(importer: str, imported: str) -> bool:
    if importer == imported:
        return True
    if importer in ALONE:
        return False
    if importer in ON_FORMATS:
        return imported in ON_FORMATS[importer]
    if imported in SERVICES:
        return importer in UPPER
    if (importer, imported) in WITHIN_A_LAYER:
        return True
    return _layer(imported) < _layer(importer)


def test_layers_import_only_what_lies_below():
    wrong = []
    for path in _modules("vis_jax"):
        unit = path.relative_to(ROOT / "vis_jax").parts[0].removesuffix(".py")
        if unit == "__init__":
            continue
        for name in _ours(path):
            package = name.split(".")[0]
            if package == "vis_jax":
                fine = _may_import(unit, _unit(name))
            else:
                fine = package == "data_pipeline" and unit in UPPER
            if not fine:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_each_system_stands_alone():
    for path in _modules("vis_jax/systems"):
        others = {
            name.split(".")[2] for name in _ours(path) if _unit(name) == "systems"
        }
        shared = {"system", "detect_then_track", "tracked_detector", "track_pairs"}
        if path.parent.name == "osmn":  # a system with a folder
            shared |= {"osmn"}
        if path.stem.startswith("rgnn_"):  # one system in three files
            shared |= {"rgnn_model", "rgnn_loss"}
        if path.stem.startswith("iai"):  # two systems that differ in the detector
            shared |= {"iai_model", "iai_loss", "iai_mask_rcnn_loss", "iai_video"}
        if path.stem.startswith(("cascade", "mask_prop")):  # one detector
            shared |= {"cascade_loss"}
        if path.stem.startswith("mask_prop"):  # one system in several files
            shared |= {
                f"mask_prop_{part}"
                for part in ("model", "settings", "carriers", "frames", "video", "loss")
            }
        if path.stem.startswith("videomt"):  # one system in several files
            shared |= {
                f"videomt_{part}" for part in ("model", "settings", "video", "loss")
            }
        assert path.name == "__init__.py" or others <= shared, path


@pytest.mark.parametrize(
    ("package", "banned"),
    [
        ("data_pipeline", {"jax", "flax", "vis_jax"}),
        ("vis_jax/formats", {"jax", "flax", "tensorflow"}),
        ("vis_jax/metrics", {"jax", "flax", "tensorflow"}),
        ("vis_jax/results", {"jax", "flax", "tensorflow"}),
        ("vis_jax/report", {"jax", "flax", "tensorflow"}),
        ("vis_jax/visualize", {"jax", "flax", "tensorflow"}),
        ("vis_jax/converters", {"jax", "flax", "tensorflow", "torch"}),
        ("configs", {"jax", "vis_jax", "data_pipeline"}),
    ],
)
def test_some_packages_do_without(package, banned):
    for path in _modules(package):
        names = (n for n in _imports(path) if not f"{n}.".startswith(SHARED))
        found = {name.split(".")[0] for name in names} & banned
        assert not found, f"{path} imports {found}"


def _loaded_by(code: str) -> set[str]:
    """The packages, and the modules of ours, that a program loads."""
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    names = done.stdout.splitlines()[-1].split()
    return {
        name if name.startswith("vis_jax") else name.split(".")[0] for name in names
    }


def test_the_package_loads_nothing_before_it_is_used():
    loaded = _loaded_by("import vis_jax; dir(vis_jax), vis_jax.__version__")
    assert {name for name in loaded if name.startswith("vis_jax")} == {"vis_jax"}
    assert not loaded & {"numpy", "absl", "ml_collections", "etils", "data_pipeline"}


def test_scoring_loads_no_jax_and_no_tensorflow(tmp_path):
    truth = {"videos": [], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    truth["videos"] = [
        {"id": 1, "height": 8, "width": 8, "length": 1, "file_names": ["a/0.jpg"]}
    ]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text("[]")
    files = (str(tmp_path / "truth.json"), str(tmp_path / "results.json"))
    loaded = _loaded_by(f"import vis_jax; assert 'AP' in vis_jax.score(*{files})")
    assert "vis_jax.scoring" in loaded
    assert not loaded & {"jax", "flax", "tensorflow", "absl", "ml_collections", "etils"}


def _import_in_stages(*stages: tuple[set[str], list[str]]) -> None:
    """Imports modules in one process, a list at a time, each without some libraries.

    A library may come in at a later stage, but cannot be taken away again.
    """
    for (before, _), (after, _) in itertools.pairwise(stages):
        assert before > after
    code = """
import importlib, json, sys
for blocked, modules in json.loads(sys.argv[1]):
    for name in [name for name, module in sys.modules.items() if module is None]:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(blocked))
    for name in modules:
        importlib.import_module(name)
"""
    words = json.dumps([(sorted(blocked), modules) for blocked, modules in stages])
    done = subprocess.run(
        [sys.executable, "-c", code, words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def _names(*packages: str) -> list[str]:
    paths = [path for package in packages for path in _modules(package)]
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths]
    return [name.removesuffix(".__init__") for name in names]


def test_models_need_no_tensorflow_and_no_module_what_only_some_commands_need():
    optional = {"tensorflow", "tensorflow_datasets", "av", "tensorboardX"}
    units = set().union(*LAYERS) & {p.stem for p in (ROOT / "vis_jax").iterdir()}
    models = _names(*(f"vis_jax/{unit}" for unit in units), "configs")
    _import_in_stages(
        (optional | {"pycocotools"}, [*models, "data_pipeline.datasets.by_name"]),
        (optional, _names("vis_jax")),
    )


def test_metrics_need_no_jax_and_no_tensorflow_data_and_converters_no_jax():
    blocked = {"jax", "flax", "torch"}
    packages = ("formats", "metrics", "results", "report", "scoring")
    numbers = _names(*(f"vis_jax/{package}" for package in packages))
    _import_in_stages(
        (blocked | {"tensorflow"}, numbers),
        (blocked, _names("data_pipeline", "vis_jax/converters")),
    )
