"""Communication and operations of programs, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vis_jax.training.chips import CHIPS, Chip, roofline
from vis_jax.training.flops import product_flops
from vis_jax.training.hlo import Collective, collectives

TEXT = """HloModule jit_update, is_scheduled=true, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %r = f32[4]{0} all-reduce(%g), channel_id=3, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
  %s = bf16[2,3]{1,0} reduce-scatter(%h), replica_groups={}, dimensions={0}, to_apply=%add
}

%outer (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %w = (s32[], f32[4]{0}) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %w2 = (s32[], f32[4]{0}) while(%t), condition=%c, body=%outer, backend_config={"known_trip_count":{"n":"5"}}
  %g = f32[64,16]{1,0} all-gather(%a), replica_groups=[2,4]<=[8], dimensions={1}
  %m = (f32[8]{0}, pred[3]{0}) all-to-all(%a, %b), replica_groups=[4,2]<=[2,4]T(1,0)
  %n = f32[2]{0} all-reduce(%a), replica_groups=mesh['x'=1,'y'=4,'z'=2], device_ids=([2,4]T(1,0)) {'y'}, to_apply=%add
  %o = f32[2]{0} all-reduce(%a), replica_groups=mesh['x'=8] {'x':(2)2}, to_apply=%add
  %p = u8[5]{0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}
  %q = f32[9]{0} all-reduce(%a), replica_groups={{0},{1},{2},{3}}, to_apply=%add
}
"""  # noqa: E501


def test_collectives_by_hand():
    found = collectives(TEXT)
    assert [(one.kind, one.size, one.times) for one in found] == [
        ("all-reduce", 16, 15),
        ("reduce-scatter", 12, 15),
        ("all-gather", 4096, 1),
        ("all-to-all", 35, 1),
        ("all-reduce", 8, 1),
        ("all-reduce", 8, 1),
        ("collective-permute", 5, 1),
    ]  # the last one stays on its device
    groups = [one.groups.tolist() for one in found]
    assert groups[0] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert groups[1] == [list(range(8))]
    assert groups[2] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups[3] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    # Transposed, the devices are 0 4 | 1 5 | 2 6 | 3 7; y is the first of both axes.
    assert groups[4] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups[5] == [[0, 2], [1, 3], [4, 6], [5, 7]]
    sent = [one.sent for one in found]
    expected = [15 * 16, 15 * 7 * 12, 3072, 17.5, 12, 8, 5]
    np.testing.assert_allclose(sent, expected)


def test_groups_in_an_unknown_form_are_an_error():
    text = TEXT.replace("[2,4]<=[8]", "spiral")
    with pytest.raises(ValueError, match="expected groups of devices, got 'spiral"):
        collectives(text)


def test_a_roofline_by_hand():
    chip = Chip(100.0, 1.0, 10.0, link=8.0, domain=4, network=0.5)
    near = Collective("all-gather", 32, 1, np.arange(8).reshape(2, 4))  # sends 24
    found = roofline(chip, flops=200.0, moved=50.0, exchanged=[near])
    assert found == (2.0, 5.0, 3.0)
    assert (found.least, found.most) == (5.0, 10.0)
    # All eight: 28 bytes leave a domain over the networks of four members.
    far = Collective("all-gather", 32, 1, np.arange(8)[None])
    assert roofline(chip, flops=0, moved=0, exchanged=[far]).least == 28 / (4 * 0.5)
    # Pairs in different domains have one network each.
    pairs = Collective("all-gather", 32, 1, np.arange(8).reshape(2, 4).T)
    assert roofline(chip, flops=0, moved=0, exchanged=[pairs]).least == 16 / 0.5
    assert set(CHIPS) == {"H100", "H200", "v5e", "v5p", "v6e"}


def test_operations_of_products_by_hand():
    def product(x, w):
        return jnp.einsum("bij,bjk->bik", x, w)

    def repeated(x, w):
        def body(carry, _):
            return jnp.tanh(carry @ w), ()

        return jax.lax.scan(body, x, None, length=5)[0]

    def branches(x, w):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: (x @ w) @ w)

    def flops(function, *shapes):
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        return product_flops(jax.make_jaxpr(jax.jit(function))(*arrays))

    assert flops(product, (7, 2, 3), (7, 3, 4)) == 2 * 7 * 2 * 3 * 4
    assert flops(repeated, (2, 3), (3, 3)) == 5 * 2 * 2 * 3 * 3
    assert flops(jax.checkpoint(repeated), (2, 3), (3, 3)) == 5 * 2 * 2 * 3 * 3
    assert flops(branches, (2, 3), (3, 3)) == 2 * 2 * 2 * 3 * 3


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 2)])
def test_a_convolution_and_each_of_its_gradients_count_the_same(stride, groups):
    image, kernel = (2, 8, 8, 4), (3, 3, 4 // groups, 6)

    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip

    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (image, kernel)]
    out = jax.eval_shape(convolve, *arrays)
    one = 2 * out.size * 9 * 4 // groups
    assert product_flops(jax.make_jaxpr(convolve)(*arrays)) == one

    def loss(x, w):
        return convolve(x, w).sum()

    for number in (0, 1):  # beside the forward pass
        gradient = jax.make_jaxpr(jax.grad(loss, number))(*arrays)
        assert product_flops(gradient) == 2 * one
