"""Mutation tests: applies known faults to copies of the code, one at a time.

Run:   make mutants
       python -m tests.mutants box_decode_sign nms_ge

Each fault changes one line; the list is tests/mutants/mutants.toml. A fault that no
test detects has SURVIVED: write a test that fails with it. The working tree is not
modified: faults are applied to a copy of the files under version control.

Exit code: 0 if the tests detect every fault, 1 if one survives, 2 if the list does not
match the code or tests fail without a fault.
"""

import argparse
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.mutants.faults import Mutant, StaleListError, mutated, read_mutants
from tests.mutants.runs import PASSED, copied_tree, is_noticed, run_tests

# Time limit in seconds for tests without a fault.
_LIMIT = 1800.0


def main(arguments: list[str] | None = None) -> int:
    """Runs the named mutants, or all; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        mutants = _chosen(options.names)
        if options.list:
            for mutant in mutants:
                print(f"{mutant.name:<32} {mutant.file}")
            return 0
        for mutant in mutants:  # checks all before the first, slow run
            mutated(mutant)
        with TemporaryDirectory(prefix="vis_jax_mutants_cache_") as cache:
            survivors = _run(mutants, Path(cache))
    except (StaleListError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} killed")
    if survivors:
        print("survived:", *survivors)
    return int(bool(survivors))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these faults")
    parser.add_argument("--list", action="store_true", help="print names and files")
    return parser


def _chosen(names: list[str]) -> list[Mutant]:
    mutants = {mutant.name: mutant for mutant in read_mutants()}
    unknown = sorted(set(names) - set(mutants))
    if unknown:
        raise StaleListError(f"no fault is named {', '.join(unknown)}: see --list")
    return [mutants[name] for name in dict.fromkeys(names or mutants)]


def _run(mutants: list[Mutant], cache: Path) -> list[str]:
    """Runs the mutants; returns the names of survivors."""
    seconds: dict[tuple[str, ...], float] = {}  # duration of tests without a fault
    survivors = []
    for mutant in mutants:
        if mutant.tests not in seconds:
            seconds[mutant.tests] = _run_without_fault(mutant.tests, cache)
        text = mutated(mutant)
        with copied_tree() as tree:
            (tree / mutant.file).write_text(text)
            limit = 60 + 5 * seconds[mutant.tests]
            outcome = run_tests(tree, mutant.tests, limit=limit, cache=cache)
        if is_noticed(outcome):
            noticed = f"{mutant.name}: {outcome.noticed_by}"
            print(f"killed   {outcome.seconds:6.1f} s  {noticed}", flush=True)
        else:
            survivors.append(mutant.name)
            print(f"SURVIVED {outcome.seconds:6.1f} s  {mutant.name}", flush=True)
    return survivors


def _run_without_fault(tests: tuple[str, ...], cache: Path) -> float:
    """Returns the duration of the tests in seconds; RuntimeError unless they pass."""
    with copied_tree() as tree:
        outcome = run_tests(tree, tests, limit=_LIMIT, cache=cache)
    if outcome.code != PASSED:
        raise RuntimeError(
            f"{' '.join(tests)}: fails without a fault:\n{outcome.output[-3000:]}"
        )
    print(f"no fault {outcome.seconds:6.1f} s  {' '.join(tests)}", flush=True)
    return outcome.seconds


if __name__ == "__main__":
    # Like Ctrl-C, so that copies are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
