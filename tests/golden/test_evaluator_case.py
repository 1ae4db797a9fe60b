from types import SimpleNamespace

import numpy as np

from tests.golden.cases import FOLDER
from tests.golden.evaluator_case import compare


def test_everything_is_as_stored():
    with np.load(FOLDER / "evaluator" / "expected.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    results = compare(SimpleNamespace(path=FOLDER / "evaluator.json", arrays=arrays))
    assert results.keys() == arrays.keys()
    # Here only every fifth recall point is kept.
    results["occlusion/precision"] = results["occlusion/precision"][:, ::5]
    for name, values in results.items():
        np.testing.assert_allclose(values, arrays[name], atol=1e-9, err_msg=name)
