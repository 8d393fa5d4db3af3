import pytest
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from canon_seg import compat  # noqa: F401
from canon_seg.config import load_config
from canon_seg.errors import InputError
from canon_seg.segmenters.sam_meta_arch import build_sam, image_size
from canon_seg.segmenters.sam_models import LongestSide, build_tiny_sam


def test_tiny_encoder_has_the_interface_of_sams():
    sam = build_tiny_sam(64, (8, 8, 16, 16), (1, 2, 1, 1), 32)
    assert isinstance(sam, Sam) and not sam.training
    assert sam.image_encoder.img_size == 64
    embedding = sam.image_encoder(torch.zeros(2, 3, 64, 64))
    assert embedding.shape == (2, 32, 8, 8)
    assert sam.prompt_encoder.get_dense_pe().shape == (1, 32, 8, 8)
    # segment_anything's own forward runs on it, with masks of any size.
    inputs = {
        "image": torch.zeros(3, 40, 64), "original_size": (50, 80),
        "boxes": torch.tensor([[4.0, 4.0, 30.0, 20.0]]),
    }
    result = sam([inputs], multimask_output=True)[0]
    assert result["masks"].shape == (1, 3, 50, 80)
    assert result["low_res_logits"].shape == (1, 3, 32, 32)


def test_names_and_sizes_of_the_embedded_model_are_kept():
    cfg = load_config("", [
        "MODEL.SAM.SIZE", "tiny", "MODEL.SAM.TINY.IMAGE_SIZE", "256", "MODEL.SAM.TINY.CHANNELS",
        "[48, 96, 192, 256]", "MODEL.SAM.TINY.BLOCKS", "[1, 2, 2, 2]", "MODEL.SAM.TINY.EMBED_DIM",
        "96",
    ])
    state = build_sam(cfg).state_dict()
    for name, shape in {
        "image_encoder.stem.0.0.weight": (48, 3, 3, 3),
        "image_encoder.stages.3.1.conv2.1.running_var": (256,),
        "image_encoder.stages.1.0.shortcut.0.weight": (96, 48, 1, 1),
        "image_encoder.laterals.2.weight": (96, 256, 1, 1),
        "image_encoder.neck.2.bias": (96,),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 48),
        "mask_decoder.mask_tokens.weight": (4, 96),
    }.items():
        assert tuple(state[name].shape) == shape
    assert sum(value.numel() for value in state.values()) * 2 < 12e6  # bytes in half precision
    assert image_size(cfg) == 256


@pytest.mark.parametrize("options, message", [
    (["MODEL.SAM.SIZE", "vit_x"], "MODEL.SAM.SIZE.*vit_x.*vit_h"),
    (["MODEL.SAM.SIZE", "tiny", "MODEL.SAM.TINY.IMAGE_SIZE", "250"], "IMAGE_SIZE"),
    (["MODEL.SAM.SIZE", "tiny", "MODEL.SAM.TINY.EMBED_DIM", "40"], "EMBED_DIM"),
    (["MODEL.SAM.SIZE", "tiny", "MODEL.SAM.TINY.BLOCKS", "[1, 1]"], "BLOCKS"),
])
def test_sizes_that_do_not_work_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build_sam(load_config("", options))


def test_side_of_official_models():
    assert image_size(load_config("", ["MODEL.SAM.SIZE", "vit_l"])) == 1024


@pytest.mark.parametrize("size", [(480, 640), (1, 300), (333, 17), (1024, 1024)])
def test_resizing_is_sams(size):
    expected = ResizeLongestSide.get_preprocess_shape(*size, 1024)
    assert LongestSide.get_preprocess_shape(*size, 1024) == expected


def test_resizing_leaves_a_pixel_of_very_long_images():
    assert LongestSide.get_preprocess_shape(1, 3000, 256) == (1, 256)
    assert LongestSide.get_preprocess_shape(3000, 1, 256) == (256, 1)
