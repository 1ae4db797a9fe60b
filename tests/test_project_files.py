"""Files around the code agree with it: workflows, reference, citation, site."""

import configparser
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import vis_jax
from tests import processor_time
from tests.command_line import check_words
from vis_jax.main import COMMANDS, split_command

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def targets():
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def steps(path):
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_workflows_and_pages_call_targets_that_exist():
    lines = [step.get("run", "") for path in WORKFLOWS for step in steps(path)]
    lines += (ROOT / "CONTRIBUTING.md").read_text().replace("`", "\n").splitlines()
    called = set(re.findall(r"^make ([a-z-]+)", "\n".join(lines), re.M))
    assert {"lint", "docs", "demo", "notebooks", "test"} <= called <= targets()


def lines_of_demo(*words):
    """Returns the commands that `make demo` would run."""
    command = ["make", "--dry-run", "demo", "SOURCE=clip.mp4", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("words", [(), ("SCRATCH=1",)])
def test_the_demo_runs_commands_that_exist_and_the_nightly_reads_its_scores(words):
    lines = lines_of_demo(*words)
    ours = [line.partition(" -m vis_jax.main ")[2] for line in lines]
    commands = [split_command(shlex.split(line)) for line in ours if line]
    names = [name for name, _ in commands]
    predicted = ["predict"] * (2 if words else 3)
    assert sorted(names) == sorted(["data make_shapes", "train", "score", *predicted])
    for name, rest in commands:
        module = "vis_jax.commands." + name.replace(" ", "_")
        check_words(importlib.import_module(module), rest)
    nightly = (ROOT / ".github/workflows/nightly.yml").read_text()
    assert " ".join(["make demo", *words]) in re.findall(r"- run: (.*)", nightly)
    (scores,) = set(re.findall(r"\S+/scores\.json", "\n".join(lines)))
    assert f'"{scores}":' in nightly


def test_the_oldest_jax_and_the_pythons_of_the_tests_are_those_of_the_package():
    content = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    matrix = content["jobs"]["tests"]["strategy"]["matrix"]
    config = setup()
    (jax,) = re.findall(r"^jax>=([\d.]+)", config["options"]["install_requires"], re.M)
    assert f"jax=={jax}" in [one.get("packages") for one in matrix["include"]]
    pythons = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    assert matrix["python"] == pythons
    assert config["options"]["python_requires"] == f">={pythons[0]}"
    assert {"--resolution lowest-direct"} == {
        one["options"] for one in matrix["include"] if one.get("python") == pythons[0]
    }


def test_every_requirement_has_the_lower_bound_that_is_tested():
    """Without one, `--resolution lowest-direct` takes the first release ever made."""
    config = setup()
    lines = config["options"]["install_requires"].splitlines()
    lines += config["options.extras_require"]["dev"].splitlines()
    assert not [
        line for line in lines if line and not re.match(r"[\w-]+>=[\d.]+", line)
    ]


def test_what_scoring_needs_is_part_of_what_all_needs():
    lines = (ROOT / "requirements-score.txt").read_text().splitlines()
    needed = {line for line in lines if line and not line.startswith("#")}
    assert needed <= set(setup()["options"]["install_requires"].splitlines())


def test_the_reference_has_every_public_name_and_command():
    text = (ROOT / "docs/reference.md").read_text()
    public = set(re.findall(r"^::: vis_jax\.(\w+)$", text, re.M))
    assert public == set(vis_jax.__all__) - {"__version__"}
    commands = dict(re.findall(r"^\| `([\w ]+)` \| (.*) \|$", text, re.M))
    assert commands == COMMANDS


def test_what_the_reference_names_exists_and_is_explained():
    text = (ROOT / "docs/reference.md").read_text()
    entries = re.findall(r"^::: ([\w.]+)(?:\n +options:\n((?: +.*\n)+))?", text, re.M)
    assert len(entries) == text.count("\n::: ")
    for name, options in entries:
        module, _, last = name.rpartition(".")
        found = getattr(importlib.import_module(module), last)
        assert found.__doc__, name
        for member in re.findall(r"\w+", "".join(re.findall(r"\[(.*)\]", options))):
            if member not in getattr(found, "__annotations__", {}):  # fields have none
                assert getattr(found, member).__doc__, f"{name}.{member}"


def test_tests_listed_as_slow_exist():
    for name in processor_time.listed():
        path, _, function = name.partition("::")
        assert f"\ndef {function}(" in (ROOT / path).read_text(), name


def test_the_citation_has_the_version():
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert content["version"] == vis_jax.__version__


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    text = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r"[\w/]+\.(?:md|ipynb)$", text, re.M)
    docs = ROOT / "docs"
    pages = [*docs.rglob("*.md"), *(docs / "examples").glob("*.ipynb")]
    assert sorted(named) == sorted(str(page.relative_to(docs)) for page in pages)
