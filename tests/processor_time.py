"""Pytest plug-in: processor time of tests, and what follows from it.

The time includes all threads of the process and its finished subprocesses. Unlike wall
time, it hardly depends on the load of the machine.

- A run ends with its ten slowest tests.
- `make slow` writes the slow test functions to slow.txt, each with the seconds of all
  its cases, from an empty cache of programs: first of all tests, then twice of those
  that are left, since the first test that needs a shared program pays for it.
- These have the mark `slow`, which `make test-fast` leaves out. The files with most of
  these seconds start first: if a worker started one last, the others would wait for it.
"""

import resource
from collections import Counter
from pathlib import Path

import pytest

SHOWN = 10
LIST = Path(__file__).parent / "slow.txt"
# A test function is slow if it takes this long in a case on average, or in all cases.
# The shared fixtures that it needs count.
SLOW_CASE, SLOW_CASES = 0.2, 2.0
_OWN, _SHARED = "processor seconds", "processor seconds of shared fixtures"
_before = pytest.StashKey[float]()
_shared: dict[tuple[str, str], float] = {}  # by where a fixture is defined, and name


def _seconds() -> float:
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[_before] = _seconds()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    before = _seconds()
    result = yield
    if fixturedef.scope != "function":
        _shared[fixturedef.baseid, fixturedef.argname] = _seconds() - before
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Adds the processor time of a phase (set-up, call, tear-down) to its report."""
    report = yield
    now = _seconds()
    report.user_properties.append((_OWN, now - item.stash.get(_before, now)))
    item.stash[_before] = now
    if report.when == "call":
        shared = sum(
            seconds
            for (base, name), seconds in _shared.items()
            if name in item.fixturenames and item.nodeid.startswith(base)
        )
        report.user_properties.append((_SHARED, shared))
    return report


def pytest_terminal_summary(terminalreporter, config):
    """Prints the slowest tests; under xdist, of all workers."""
    taken, needed = Counter(), Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name in (_OWN, _SHARED):
                    needed[report.nodeid] += value
                if name == _OWN:
                    taken[report.nodeid] += value
    if not taken:
        return
    terminalreporter.section(f"slowest {SHOWN} of {sum(taken.values()):.0f} CPU s")
    for test, seconds in taken.most_common(SHOWN):
        terminalreporter.write_line(f"{seconds:7.1f} s  {test}")
    if config.getoption("write_slow"):
        skipped = terminalreporter.stats.get("skipped", ())
        write(taken, needed, {function_of(report.nodeid) for report in skipped})


def function_of(test: str) -> str:
    """The test function of a test, whose name may end with a case in brackets."""
    return test.partition("[")[0]


def listed() -> dict[str, float]:
    """The seconds of the slow test functions, from slow.txt."""
    lines = LIST.read_text().splitlines()
    return {name: float(seconds) for name, seconds in map(str.rsplit, lines)}


def write(taken: Counter, needed: Counter, skipped: set[str]) -> None:
    """Writes slow.txt; functions that were not run or were skipped stay as they are."""
    slow, cases, own, all_needed = listed(), Counter(), Counter(), Counter()
    for test, seconds in needed.items():
        name = function_of(test)
        cases[name] += 1
        own[name] += taken[test]
        all_needed[name] += seconds
    for name, seconds in own.items():
        if all_needed[name] >= SLOW_CASE * cases[name] or seconds >= SLOW_CASES:
            slow[name] = seconds
        elif name not in skipped:
            slow.pop(name, None)
    LIST.write_text("".join(f"{name} {slow[name]:.1f}\n" for name in sorted(slow)))


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items):
    slow, of_file = listed(), Counter()
    for name, seconds in slow.items():
        of_file[name.partition("::")[0]] += seconds
    for item in items:
        if function_of(item.nodeid) in slow:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: -of_file[item.nodeid.partition("::")[0]])
