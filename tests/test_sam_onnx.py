"""The modules that are exported, against segment_anything's predictor on the same SAM."""

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from canon_seg.sam.onnx import BoxDecoderForExport, ClickDecoderForExport, EncoderForExport
from canon_seg.sam.two_stage import build_two_stage_sam

SIDE = 64


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    sam = build_two_stage_sam(SIDE, "test_efficientnet", 32).requires_grad_(False)
    # Layers that start at zero would hide what is in front of them.
    for name, value in sam.mask_decoder.named_parameters():
        if "conv2" in name:
            torch.nn.init.normal_(value, std=0.05)
    predictor = SamPredictor(sam)
    predictor.set_image(image())
    return predictor


def image():
    return np.random.default_rng(0).integers(0, 256, (48, SIDE, 3), np.uint8)


def test_encoder(predictor):
    pixels = torch.full((1, 3, SIDE, SIDE), 127.5)
    pixels[0, :, :48] = torch.from_numpy(image()).permute(2, 0, 1)
    embedding = EncoderForExport(predictor.model)(pixels)
    torch.testing.assert_close(embedding, predictor.features)


@pytest.mark.parametrize("with_mask", [False, True])
def test_clicks(predictor, with_mask):
    coords = torch.tensor([[[30.0, 20], [50, 40], [0, 0]]])
    labels = torch.tensor([[1, 0, -1]])
    before = 3 * torch.randn(1, 1, SIDE // 2, SIDE // 2)
    decoder = ClickDecoderForExport(predictor.model)
    masks, ious = decoder(
        predictor.features, coords, labels, before, torch.tensor([float(with_mask)])
    )
    _, expected, logits = predictor.predict_torch(
        coords, labels, mask_input=before if with_mask else None
    )
    torch.testing.assert_close(masks, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ious, expected, rtol=1e-4, atol=1e-4)


def test_boxes(predictor):
    box = torch.tensor([[10.0, 12, 50, 44]])
    masks, ious = BoxDecoderForExport(predictor.model)(predictor.features, box)
    _, expected, logits = predictor.predict_torch(None, None, box)
    torch.testing.assert_close(masks, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ious, expected, rtol=1e-4, atol=1e-4)
