"""Pytest plug-in that lists the ten slowest tests by processor time.

The time includes all threads of the process and its finished subprocesses. Unlike wall
time, it hardly depends on the load of the machine.
"""

import resource
from collections import Counter

import pytest

SHOWN = 10
_NAME = "processor seconds"
_before = pytest.StashKey[float]()


def _seconds() -> float:
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[_before] = _seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Adds the processor time of a phase (set-up, call, tear-down) to its report."""
    report = yield
    now = _seconds()
    report.user_properties.append((_NAME, now - item.stash.get(_before, now)))
    item.stash[_before] = now
    return report


def pytest_terminal_summary(terminalreporter):
    """Prints the slowest tests; under xdist, of all workers."""
    taken = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == _NAME:
                    taken[report.nodeid] += value
    if not taken:
        return
    terminalreporter.section(f"slowest {SHOWN} of {sum(taken.values()):.0f} CPU s")
    for test, seconds in taken.most_common(SHOWN):
        terminalreporter.write_line(f"{seconds:7.1f} s  {test}")
