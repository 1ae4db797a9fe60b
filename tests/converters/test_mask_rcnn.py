import numpy as np
import pytest

from tests.golden.cases import load
from tests.golden.mask_rcnn import converted, inputs_of_case, model_of_case, shapes_of
from vis_jax.converters.load import convert_tensors
from vis_jax.converters.mask_rcnn import roi_kernel, transposed_kernel
from vis_jax.params import flatten

CASE = "maskrcnn_r50_fpn_torchvision"


def _model():
    case = load(CASE)
    return model_of_case(case, inputs_of_case(case)[1])


@pytest.fixture(scope="module")
def ours():
    return flatten(converted(load(CASE), _model(), "mask_rcnn_torchvision"))


def test_background_moves_from_first_to_last(ours):
    weights = load(CASE).weights()
    theirs = weights["roi_heads.box_predictor.cls_score.bias"]
    bias = ours["params/box_head/class_logits/bias"]
    np.testing.assert_array_equal(bias, [*theirs[1:], theirs[0]])
    theirs = weights["roi_heads.box_predictor.bbox_pred.bias"]
    np.testing.assert_array_equal(ours["params/box_head/deltas/bias"], theirs[4:])
    theirs = weights["roi_heads.mask_predictor.mask_fcn_logits.bias"]
    np.testing.assert_array_equal(ours["params/mask_head/mask_logits/bias"], theirs[1:])


def test_older_names_of_torchvision_are_the_same(ours):
    def older(name):
        for index in range(4):
            name = name.replace(
                f"mask_head.{index}.0.", f"mask_head.mask_fcn{index + 1}."
            )
            name = name.replace(f"_blocks.{index}.0.", f"_blocks.{index}.")
        return name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")

    weights = {older(name): x for name, x in load(CASE).weights().items()}
    shapes = shapes_of(_model())
    again, _ = convert_tensors(weights, shapes, "mask_rcnn_torchvision")
    for path, leaf in flatten(again).items():
        np.testing.assert_array_equal(leaf, ours[path], err_msg=path)


def test_layers_of_the_classes_stay_new_for_other_classes():
    case = load(CASE)
    model = _model()
    model = model.clone(
        box_head=model.box_head.clone(num_classes=40),
        mask_head=model.mask_head.clone(num_classes=40),
    )
    _, report = convert_tensors(
        case.weights(), shapes_of(model), "mask_rcnn_torchvision"
    )
    assert set(report.new) == {
        f"params/{layer}/{leaf}"
        for layer in (
            "box_head/class_logits",
            "box_head/deltas",
            "mask_head/mask_logits",
        )
        for leaf in ("kernel", "bias")
    }


def test_a_missing_tensor_and_an_unknown_one_are_errors():
    weights = load(CASE).weights()
    weights["roi_heads.keypoint.bias"] = weights.pop("roi_heads.box_head.fc7.bias")
    shapes = shapes_of(_model())
    with pytest.raises(ValueError, match="2 misfits") as error:
        convert_tensors(weights, shapes, "mask_rcnn_torchvision")
    assert "roi_heads.keypoint.bias" in str(error.value)
    assert "params/box_head/fc2/bias" in str(error.value)


def test_kernels_keep_what_they_multiply():
    rng = np.random.default_rng(0)
    x, weight = rng.random((3, 2, 2)), rng.random((5, 12))  # C, h, w
    ours = np.einsum(
        "hwc,hwco->o", x.transpose(1, 2, 0), roi_kernel(weight, (2, 2, 3, 5))
    )
    np.testing.assert_allclose(ours, weight @ x.ravel())
    assert roi_kernel(weight, (2, 2, 4, 5)) is weight
    assert transposed_kernel(np.zeros((3, 5, 2, 2)), (3, 2, 2, 5)).shape == (3, 2, 2, 5)
