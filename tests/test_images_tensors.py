import numpy as np
import pytest
import torch

from canon_seg.images.tensors import segmenter_inputs, to_chw

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize("view", [PIXELS, PIXELS[::-1, :, ::-1], np.rot90(PIXELS), PIXELS[:1, :1]])
def test_values_keep_their_place(view):
    tensor = to_chw(view)
    assert tensor.is_contiguous() and tensor.dtype == torch.uint8
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), view)


def test_the_tensor_has_memory_of_its_own():
    pixel = np.zeros((1, 1, 3), np.uint8)  # one pixel is contiguous in both layouts
    to_chw(pixel)[:] = 9
    assert not pixel.any()


def test_inputs_have_the_images_size():
    inputs = segmenter_inputs(PIXELS, image_id=7)
    assert (inputs["height"], inputs["width"], inputs["image_id"]) == (4, 5, 7)
    assert inputs["image"].shape == (3, 4, 5)
