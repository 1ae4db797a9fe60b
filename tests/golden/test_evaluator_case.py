from types import SimpleNamespace

import numpy as np

from tests.golden.cases import FOLDER
from tests.golden.evaluator_case import compare


def test_scores_and_overlaps_are_the_stored_ones():
    """The whole case is larger than what is kept here of two of its sets."""
    with np.load(FOLDER / "evaluator" / "expected.npz") as stored:
        arrays = {
            name: stored[name]
            for name in stored.files
            if {"basic", "ties"} & set(name.split("/"))
        }
    results = compare(SimpleNamespace(path=FOLDER / "evaluator.json", arrays=arrays))
    kinds = {name.split("/")[0] for name in results}
    assert kinds == {"basic", "ties", "trackeval", "tracking"}
    for name, values in results.items():
        np.testing.assert_allclose(values, arrays[name], atol=1e-9, err_msg=name)
