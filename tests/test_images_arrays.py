"""Quarter turns of arrays: index by index, for numpy and torch, against detectron2 as oracle."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.core.turn import Turn
from canon_seg.geometry import C4, turn_image, turn_maps, turned_size
from canon_seg.images.arrays import contiguous

TURNS = st.sampled_from(C4.elements)
SIDES = st.integers(1, 9)


def counting(*shape):
    """All elements different, so that no two arrangements are equal."""
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


def as_torch(array):
    return torch.from_numpy(array)


@pytest.mark.parametrize("make", [np.copy, as_torch])
@given(height=SIDES, width=SIDES, a=TURNS, b=TURNS)
def test_turns_compose_and_invert(make, height, width, a, b):
    for turn, array in [
        (turn_image, make(counting(height, width))),
        (turn_image, make(counting(height, width, 3))),
        (turn_maps, make(counting(height, width))),
        (turn_maps, make(counting(2, 3, height, width))),
    ]:
        once = turn(array, a)
        np.testing.assert_array_equal(turn(once, b), turn(array, C4.compose(a, b)))
        np.testing.assert_array_equal(turn(once, C4.inverse(a)), array)
        assert once.dtype == array.dtype


@given(height=SIDES, width=SIDES, turns=TURNS)
def test_size(height, width, turns):
    size = turned_size(height, width, turns)
    assert turn_image(counting(height, width, 3), turns).shape == (*size, 3)
    assert turn_maps(counting(3, height, width), turns).shape == (3, *size)


@given(height=SIDES, width=SIDES, turns=TURNS)
def test_channels_first_and_last_agree(height, width, turns):
    image = counting(height, width, 3)
    channels_first = turn_maps(image.transpose(2, 0, 1), turns)
    np.testing.assert_array_equal(channels_first.transpose(1, 2, 0), turn_image(image, turns))


@given(height=SIDES, width=SIDES, turns=TURNS)
def test_torch_and_numpy_agree(height, width, turns):
    maps = counting(2, height, width)
    np.testing.assert_array_equal(turn_maps(as_torch(maps), turns), turn_maps(maps, turns))


def test_one_turn_is_counterclockwise():
    image = np.array([[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(turn_image(image, 1), [[3, 6], [2, 5], [1, 4]])


@pytest.mark.parametrize("make", [np.copy, as_torch])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32"])
def test_dtype_is_kept_and_input_unchanged(make, dtype):
    original = counting(3, 2).astype(dtype)
    array = make(original)
    for turns in C4.elements:
        assert turn_maps(array, turns).dtype == array.dtype
    np.testing.assert_array_equal(array, original)


def test_numpy_does_not_copy():
    image = counting(4, 3, 3)
    assert all(np.shares_memory(turn_image(image, turns), image) for turns in C4.elements)


def test_torch_does_not_copy_for_no_turn():
    maps = as_torch(counting(2, 4, 3))
    assert turn_maps(maps, 0).data_ptr() == maps.data_ptr()


@pytest.mark.parametrize("turns", C4.elements)
def test_no_instances(turns):
    assert turn_maps(torch.zeros(0, 4, 3), turns).shape == (0, *turned_size(4, 3, turns))


@pytest.mark.parametrize("turns", C4.elements)
def test_gradient_turns_back(turns):
    logits = torch.zeros(1, 3, 5, requires_grad=True)
    weight = torch.rand(1, *turned_size(3, 5, turns))
    (turn_maps(logits, turns) * weight).sum().backward()
    assert torch.equal(logits.grad, turn_maps(weight, C4.inverse(turns)))


@pytest.mark.parametrize(("height", "width"), [(6, 6), (6, 9), (7, 4), (1, 5), (3, 1)])
@pytest.mark.parametrize("turns", C4.elements)
def test_detectron2_rotates_the_same_way(height, width, turns):
    pytest.importorskip("detectron2")
    import canon_seg.d2.compat  # noqa: F401

    from detectron2.data.transforms import RotationTransform

    rotation = RotationTransform(height, width, C4.degrees(turns))
    labels = (counting(height, width) + 1).astype(np.uint8)
    np.testing.assert_array_equal(rotation.apply_segmentation(labels), turn_image(labels, turns))


@pytest.mark.parametrize("turn", [turn_image, turn_maps])
def test_bad_input(turn):
    with pytest.raises(TypeError, match="list"):
        turn([[1, 2]], 1)
    with pytest.raises(ValueError, match=r"\(5,\)"):
        turn(np.zeros(5), 1)
    with pytest.raises(ValueError, match="not degrees"):
        turn(np.zeros((2, 2)), 90)


@pytest.mark.parametrize("shape", [(5, 1, 3), (1, 5, 3), (1, 1, 3), (4, 3), (0, 2)])
@pytest.mark.parametrize("turns", range(4))
def test_contiguous_arrays_have_the_strides_of_new_ones(shape, turns):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    turned = turn_image(array, Turn(turns, mirrored=True))
    found = contiguous(turned)
    assert (
        np.array_equal(found, turned) and found.strides == np.empty(turned.shape, np.uint8).strides
    )
    torch.from_numpy(found)  # which refuses negative strides
