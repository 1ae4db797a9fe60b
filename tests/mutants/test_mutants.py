"""The list fits the code, and the runner says what it finds; no mutant is run."""

import subprocess

import pytest

from tests.mutants import __main__ as command
from tests.mutants.faults import Mutant, StaleListError, mutated, read_mutants
from tests.mutants.runs import TIMED_OUT, Outcome, copied_tree, is_noticed

MUTANTS = read_mutants()
SUM = Mutant("sum", "code.py", "a + b", "a - b", ("test_code.py",))


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_every_fault_of_the_list_can_be_made(mutant):
    mutated(mutant)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "code.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "test_code.py").write_text("")
    return tmp_path


def test_a_fault_replaces_its_line(tree):
    assert mutated(SUM, tree) == "def add(a, b):\n    return a - b\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"before": "a * b"}, "once in code.py, found it 0 times"),
        ({"before": "a"}, "once in code.py, found it 3 times"),
        ({"after": "a +"}, "invalid syntax"),
        ({"file": "gone.py"}, "there is no file gone.py"),
        ({"tests": ("test_gone.py",)}, "there is no file test_gone.py"),
        ({"tests": ("test_code.py::test_a",)}, "there is no test test_code.py::test_a"),
    ],
)
def test_a_fault_that_does_not_fit_is_an_error(tree, changes, message):
    with pytest.raises(StaleListError, match=f"sum: .*{message}"):
        mutated(SUM._replace(**changes), tree)


def test_an_entry_without_tests_is_an_error(tmp_path):
    (tmp_path / "list.toml").write_text("[a]\nfile = 'f'\nbefore = 'b'\nafter = 'c'\n")
    with pytest.raises(StaleListError, match="a: expected .*'tests'"):
        read_mutants(tmp_path / "list.toml")


def test_a_copy_has_the_tracked_files_as_they_are_now(tree):
    (tree / "gone.py").write_text("")
    for arguments in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *arguments], cwd=tree, check=True)
    (tree / "code.py").write_text("changed")
    (tree / "gone.py").unlink()
    (tree / "new.py").write_text("")
    with copied_tree(tree) as copy:
        assert sorted(x.name for x in copy.iterdir()) == ["code.py", "test_code.py"]
        assert (copy / "code.py").read_text() == "changed"
    assert not copy.exists()


@pytest.mark.parametrize(
    ("code", "noticed"), [(0, False), (1, True), (2, True), (-11, True)]
)
def test_a_failure_and_a_crash_are_noticed(code, noticed):
    assert is_noticed(Outcome(code, 1.0, "")) == noticed


def test_tests_without_an_end_are_noticed():
    assert is_noticed(Outcome(TIMED_OUT, 1.0, ""))


def test_a_run_without_tests_is_an_error():
    with pytest.raises(RuntimeError, match="pytest ended with 5"):
        is_noticed(Outcome(5, 1.0, "no tests ran"))


@pytest.mark.parametrize(
    ("codes", "expected", "text"),
    [
        ([0, 1, 1], 0, "2 of 2 killed"),
        ([0, 1, 0], 1, "1 of 2 killed\nsurvived: nms_ge"),
        ([1], 2, "error: tests/ops/test_nms.py: fails without a fault"),
    ],
)
def test_the_exit_code_says_whether_all_are_killed(
    monkeypatch, capsys, codes, expected, text
):
    nms = next(mutant for mutant in MUTANTS if mutant.name == "nms_ge")
    other = nms._replace(name="other", after=f"~({nms.before})")
    outcomes = iter([Outcome(code, 2.0, "FAILED tests/a.py::b - c") for code in codes])
    monkeypatch.setattr(command, "read_mutants", lambda: [other, nms])
    monkeypatch.setattr(command, "run_tests", lambda *_, **__: next(outcomes))
    assert command.main([]) == expected
    printed = capsys.readouterr()
    assert text in printed.out + printed.err
    assert next(outcomes, None) is None


def test_an_unknown_name_is_an_error(capsys):
    assert command.main(["nms_gee"]) == 2
    assert "no fault is named nms_gee: see --list" in capsys.readouterr().err


def test_lists_names_and_files(capsys):
    assert command.main(["--list", "nms_ge"]) == 0
    assert capsys.readouterr().out.split() == ["nms_ge", "vis_jax/ops/nms.py"]
