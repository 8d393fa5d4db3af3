import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canon_seg.core.group import C4 as CORE_C4
from canon_seg.core.group import D4
from canon_seg.geometry.group import C4
from canon_seg.images import representative
from canon_seg.images.arrays import turn_image, turned_copy
from canon_seg.images.representative import representative_turns

FEW_VALUES = {
    "uint8": [0, 1, 255],
    "int16": [-1, 0, 1],
    "bool": [False, True],
    "float32": [0.0, -0.0, 1.0, -1.0, float("nan"), float("inf")],
    "float64": [0.0, -0.0, float("nan")],
}


@st.composite
def images(draw):
    """Small arrays of few values, so that near and true symmetries are frequent."""
    dtype = draw(st.sampled_from(sorted(FEW_VALUES)))
    shape = [draw(st.integers(1, 4)), draw(st.integers(1, 4))]
    if draw(st.booleans()):
        shape.append(draw(st.integers(1, 3)))
    values = np.array(FEW_VALUES[dtype], dtype)
    indices = draw(
        st.lists(
            st.integers(0, len(values) - 1),
            min_size=int(np.prod(shape)),
            max_size=int(np.prod(shape)),
        )
    )
    image = values[np.array(indices)].reshape(shape)
    if draw(st.booleans()):  # symmetric by 180 degrees
        half = turn_image(image, 2)
        image = np.where(np.arange(image.size).reshape(shape) % 2 == 0, image, half)
    return image


def identity(image):
    """All that byte-identical means."""
    image = np.ascontiguousarray(image)
    return image.shape, image.dtype, image.tobytes()


def strided(image):
    """The same values with other, partly negative strides."""
    padded = np.zeros((2 * image.shape[0], *image.shape[1:]), image.dtype)[::-2]
    padded[:] = image
    return padded


@given(images())
def test_all_turns_have_byte_identical_representatives(image):
    found = set()
    for turns in C4.elements:
        turned = turn_image(image, turns)
        for to_representative in representative_turns(turned):
            found.add(identity(turn_image(turned, to_representative)))
    assert len(found) == 1


@given(images())
def test_as_many_candidates_as_symmetries(image):
    symmetries = sum(identity(turn_image(image, k)) == identity(image) for k in C4.elements)
    for turns in C4.elements:
        candidates = representative_turns(turn_image(image, turns))
        assert len(candidates) == symmetries
        assert list(candidates) == sorted(set(candidates))


@given(images())
def test_the_kind_of_array_and_its_strides_do_not_matter(image):
    expected = representative_turns(np.ascontiguousarray(image))
    assert representative_turns(strided(image)) == expected
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    assert representative_turns(tensor) == expected
    if image.ndim == 3:
        channels_first = tensor.permute(2, 0, 1).contiguous()
        assert representative_turns(channels_first.permute(1, 2, 0)) == expected


@given(images())
def test_bytes_come_first_in_lexicographic_order(image):
    if image.dtype != np.uint8:
        return
    turns_of_it = [turn_image(image, k) for k in C4.elements]
    first = min((turned.shape[0], turned.tobytes()) for turned in turns_of_it)
    for turns in representative_turns(image):
        turned = turn_image(image, turns)
        assert (turned.shape[0], turned.tobytes()) == first


@pytest.mark.parametrize(
    ("image", "count"),
    [
        (np.arange(12).reshape(3, 4), 1),
        (np.arange(9).reshape(3, 3), 1),
        (np.array([[1, 2, 3], [3, 2, 1]]), 2),
        (np.array([[1, 2], [2, 1]]), 2),
        (np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]), 4),
        (np.zeros((5, 5, 3), np.uint8), 4),
        (np.zeros((4, 6, 3), np.uint8), 2),
        (np.full((3, 3), np.nan, np.float32), 4),
        (np.array([[0.0, -0.0]], np.float32), 1),  # equal in value, not in bytes
        (np.zeros((1, 1)), 4),
    ],
)
def test_number_of_candidates(image, count):
    for turns in C4.elements:
        assert len(representative_turns(turn_image(image, turns))) == count


def test_a_photograph_is_hardly_read(monkeypatch):
    read = []
    rows = representative._rows

    def counted(*args):
        block = rows(*args)
        read.append(block.size)
        return block

    monkeypatch.setattr(representative, "_rows", counted)
    image = np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    assert len(representative_turns(image)) == 1
    assert sum(read) < 0.02 * image.size


def test_a_constant_12_megapixel_image_takes_seconds_at_most():
    start = time.perf_counter()
    assert len(representative_turns(torch.zeros(3, 3464, 3464, dtype=torch.uint8)[0])) == 4
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("turns", C4.elements)
def test_turned_copies_do_not_depend_on_the_strides_of_what_is_turned(turns, dtype):
    rng = np.random.default_rng(turns)
    planes = torch.from_numpy(rng.integers(0, 256, (3, 5, 7))).to(dtype)
    rows = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    view = torch.rot90(torch.rot90(planes, 1, (1, 2)), 3, (1, 2))
    copies = [turned_copy(image, turns) for image in (planes, rows, view)]
    for image, copy in zip((planes, rows, view), copies):
        assert torch.equal(copy, torch.rot90(planes, turns, (1, 2)))
        assert copy.stride() == copies[0].stride() and copy.dtype == dtype
        assert copy.data_ptr() != image.data_ptr()


@given(images())
def test_other_devices_compare_as_the_cpu_does(image):
    """Tensors that are not on the CPU are compared where they are, by the same code."""
    if image.dtype == np.uint16:
        return
    tensor = torch.from_numpy(image.copy())
    pixels = tensor
    if tensor.dtype.is_floating_point:
        pixels = tensor.view({4: torch.int32, 8: torch.int64}[tensor.element_size()])
    elif tensor.dtype == torch.bool:
        pixels = tensor.to(torch.uint8)
    for turn in D4.elements:
        rows = turn_image(tensor, turn).shape[0]
        ours = representative._rows(pixels, turn, 0, rows)
        whole = turn_image(pixels, turn).reshape(-1)
        assert torch.equal(ours, whole)
    for group in (CORE_C4, D4):
        expected = representative_turns(image, group)
        candidates = [
            turn
            for turn in group.elements
            if turn_image(image, turn).shape[0] == min(image.shape[:2])
        ]
        blocks = [
            representative._rows(pixels, turn, 0, min(image.shape[:2])) for turn in candidates
        ]
        assert tuple(representative._first_in_order(candidates, blocks)) == expected


def test_half_precision_is_ordered_as_its_bits():
    image = torch.tensor([[1.0, -1.0], [0.0, -0.0]], dtype=torch.float16)
    assert representative_turns(image) == representative_turns(image.numpy())
    brain = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    for turn in CORE_C4.elements:
        (found,) = representative_turns(turn_image(brain, turn))
        (upright,) = representative_turns(brain)
        assert torch.equal(turn_image(turn_image(brain, turn), found), turn_image(brain, upright))
