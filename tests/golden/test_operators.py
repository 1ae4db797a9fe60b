import pytest

from tests.golden import backbones
from tests.golden.cases import load
from tests.golden.operators import compare


def test_every_stored_operator():
    case = load("ops")
    results = compare(case)
    assert results.keys() == set(case.outputs())
    for name, values in results.items():
        case.check(name, values)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("backbone_resnet50", backbones.compare_resnet),
        ("backbone_swin_tiny", backbones.compare_swin),
    ],
)
def test_every_stored_array_of_a_backbone(name, run):
    case = load(name)
    results = run(case)
    for output in case.outputs():
        case.check(output, results[output])
