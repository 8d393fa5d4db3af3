import copy

import pytest
import torch
from test_d2_meta_arch import assert_equivariant
from tiny_models import (
    canonicalized,
    random_canonicalizer,
    random_image,
    random_prompts,
    tiny_segmenter,
)
from torch import nn

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.d2.config import load_config
from canon_seg.d2.segmenters import build_segmenter
from canon_seg.errors import InputError
from canon_seg.networks.numerics import KEYS, heavy_parts, speed_up, used_numerics


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("sam", ("BFLOAT16",)),
        ("sam", ("CHANNELS_LAST",)),
        ("semantic of two layers", KEYS),
        ("mask_rcnn", ("BFLOAT16", "CHANNELS_LAST")),
    ],
)
def test_canonical_results_stay_exact(kind, keys):
    # Compiling a whole model takes long.
    segmenter = TwoLayers() if "COMPILE" in keys else tiny_segmenter(kind)
    speed_up(segmenter, keys, backend="eager")
    model = canonicalized(segmenter, random_canonicalizer())
    prompts = random_prompts(40, 61) if kind == "sam" else None
    result = assert_equivariant(model, random_image(40, 61), prompts)[0]
    if "instances" in result:
        assert len(result["instances"]) > 0
        assert result["instances"].scores.dtype == torch.float32


class TwoLayers(nn.Module):
    """A segmenter by a backbone alone."""

    resizes_itself = True

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3))

    def forward(self, batched_inputs):
        return [
            {"sem_seg": self.backbone(inputs["image"][None].float())[0, :, 1:-1, 1:-1]}
            for inputs in batched_inputs
        ]


def features_of(segmenter):
    """What its heavy part gives for a picture."""
    torch.manual_seed(0)
    with torch.no_grad():
        return heavy_parts(segmenter)[0](torch.rand(1, 3, 64, 64))


def test_each_switch_does_something_and_changes_little(monkeypatch):
    segmenter = tiny_segmenter("sam")
    plain, state = features_of(segmenter), copy.deepcopy(segmenter.state_dict())

    rounding = copy.deepcopy(segmenter)
    speed_up(rounding, ("BFLOAT16",))
    rounded = features_of(rounding)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, plain)
    assert torch.equal(rounded, features_of(copy.deepcopy(rounding)))
    torch.testing.assert_close(rounded, plain, rtol=0.1, atol=0.1 * float(plain.abs().max()))

    reordered = copy.deepcopy(segmenter)
    speed_up(reordered, ("CHANNELS_LAST",))
    assert any(value.dim() == 4 and not value.is_contiguous() for value in reordered.parameters())
    torch.testing.assert_close(features_of(reordered), plain, rtol=1e-3, atol=1e-4)

    calls = []
    monkeypatch.setattr(torch, "compile", lambda call, **options: calls.append(options) or call)
    compiled = copy.deepcopy(segmenter)
    speed_up(compiled, ("COMPILE",))
    assert torch.equal(features_of(compiled), plain)
    assert calls == [{"backend": "inductor", "dynamic": None}]

    for changed in (rounding, reordered, compiled):
        assert changed.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[k]) for k, value in changed.state_dict().items())


def test_the_tiny_encoder_compiles():
    encoder, image = tiny_segmenter("sam").sam.image_encoder, torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(encoder)(image), encoder(image))


def test_prompts_keep_their_precision():
    segmenter, dtypes = tiny_segmenter("sam"), []
    speed_up(segmenter, ("BFLOAT16",))
    segmenter.sam.mask_decoder.register_forward_hook(
        lambda module, args, output: dtypes.extend(value.dtype for value in output)
    )
    segmenter([{"image": random_image(40, 61), "prompts": random_prompts(40, 61)}])
    assert set(dtypes) == {torch.float32}


def test_switched_on_by_the_config():
    cfg = load_config(
        "",
        [
            "MODEL.SAM.SIZE",
            "tiny",
            "MODEL.SAM.TINY.IMAGE_SIZE",
            "64",
            "MODEL.SAM.TINY.CHANNELS",
            "(8, 8, 16, 64)",
            "MODEL.SAM.TINY.EMBED_DIM",
            "32",
        ],
    )
    assert used_numerics(cfg) == ()
    cfg.MODEL.SEGMENTER.BFLOAT16 = cfg.MODEL.SEGMENTER.CHANNELS_LAST = True
    assert used_numerics(cfg) == ("BFLOAT16", "CHANNELS_LAST")
    encoder = build_segmenter(cfg).sam.image_encoder
    assert encoder.forward.func.__name__ == "_in_bfloat16"
    assert encoder._forward_pre_hooks


def test_a_segmenter_without_a_heavy_part():
    speed_up(nn.Linear(1, 1), ())
    with pytest.raises(InputError, match="MODEL.SEGMENTER.BFLOAT16: Linear has neither"):
        speed_up(nn.Linear(1, 1), ("BFLOAT16",))
