#!/usr/bin/env python
r"""Export the canonicalizer's network and a small SAM to ONNX, checked against torch.

    python tools/export_onnx.py --config-file FILE --images DIR --output DIR [KEY VALUE ...]

Writes canonicalizer.onnx, encoder.onnx, clicks.onnx and boxes.onnx at the sizes of the config, runs
them by onnxruntime on photographs of DIR, and writes onnx.json: on how many the pose is the same,
and the IoU of masks of clicks and boxes with torch's, mean and smallest. What goes in and comes out
is in docs/onnx.md. Needs: pip install onnx onnxruntime onnxscript
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from segment_anything import SamPredictor
from torch import nn
from tqdm import tqdm

from canon_seg.config.device import resolve_device
from canon_seg.config.load import load_config
from canon_seg.errors import InputError, run_main
from canon_seg.images.arrays import turned_copy
from canon_seg.images.folders import list_photos
from canon_seg.images.preparation import brighten
from canon_seg.images.reading import read_image
from canon_seg.images.representative import representative_turns
from canon_seg.images.tensors import to_chw
from canon_seg.io.files import check_output_dir, write_atomically, write_json
from canon_seg.networks.backbone_scorer import BackboneScorer
from canon_seg.networks.build import build_canonicalizer
from canon_seg.sam.loading import is_sam, sam_from_config
from canon_seg.sam.onnx import BoxDecoderForExport, ClickDecoderForExport, EncoderForExport
from canon_seg.sam.two_stage import TwoStageDecoder

MOST_CLICKS = 64  # of a prompt
NUM_PHOTOS = 50
PADDING = 127.5  # of pixels beyond the picture, which normalisation makes zero
OPSET = 18


class PoseLogits(nn.Module):
    """Give the logits (1, 4) of a prepared, bright representative (1, 3, S, S), values 0..255."""

    def __init__(self, scorer):
        super().__init__()
        self.scorer, self.network = scorer, scorer.network

    def forward(self, pixels):
        """Return the logits."""
        return self.scorer.logits_of_bright_inputs(pixels)


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--images", required=True, metavar="DIR", help="photographs to check on")
    parser.add_argument(
        "--limit",
        type=int,
        default=NUM_PHOTOS,
        metavar="N",
        help=f"only the first N photographs by path; default: {NUM_PHOTOS}",
    )
    parser.add_argument("--output", required=True, metavar="DIR")
    parser.add_argument(
        "options", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options, at the end"
    )
    args = parser.parse_args()
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(f"needs {', '.join(missing)}; install: pip install {' '.join(missing)}")
    if args.limit < 1:
        raise InputError(f"--limit is {args.limit}; give the number of photographs, at least 1")
    output = Path(check_output_dir(args.output))
    cfg = load_config(args.config_file, [*args.options, "MODEL.DEVICE", "cpu"])
    resolve_device(cfg, args.config_file, args.options)
    cfg.MODEL.CANONICALIZER.TRAINABLE = False
    files = list_photos(args.images, "--images")[: args.limit]
    scorer, sam = load_models(cfg, args.config_file)
    paths = export_all(scorer, sam, output)
    found = {"photographs": len(files), **check(scorer, sam, paths, files, cfg.INPUT.FORMAT)}
    write_json(output / "onnx.json", found)
    for name, value in found.items():
        print(f"{name}: {value}")
    print("written:", *paths.values(), output / "onnx.json")


def load_models(cfg, config_file):
    """Return (scorer, `Sam`) of a config; InputError for kinds that are not exported."""
    if not is_sam(cfg):
        raise InputError(f"{config_file}: is not of a SAM behind a canonicalizer; give one that is")
    canonicalizer = build_canonicalizer(cfg).eval()
    scorer = getattr(canonicalizer, "scorer", None)
    if not isinstance(scorer, BackboneScorer):
        raise InputError(
            f"{config_file}: the canonicalizer is exported if it is a backbone; set "
            "MODEL.CANONICALIZER.WEIGHTS canon_seg://canonicalizer_pretrained.pth"
        )
    sam = sam_from_config(cfg)
    if not isinstance(sam.mask_decoder, TwoStageDecoder):
        raise InputError(
            f"{config_file}: a SAM is exported if it decodes in two stages "
            "(MODEL.SAM.TINY.BACKBONE); for the official sizes segment_anything has its own script"
        )
    return scorer.requires_grad_(False), sam.requires_grad_(False)


@torch.no_grad()
def export_all(scorer, sam, folder):
    """Write the four files; return their paths by name."""
    side, cells = sam.image_encoder.img_size, sam.prompt_encoder.image_embedding_size[0]
    encoder = EncoderForExport(sam).eval()
    pixels = torch.rand(1, 3, side, side) * 255
    embedding = encoder(pixels)
    click = {
        "embedding": embedding,
        "coords": torch.rand(1, 3, 2) * side,
        "labels": torch.tensor([[1, 0, -1]]),
        "mask": torch.randn(1, 1, 4 * cells, 4 * cells),
        "has_mask": torch.ones(1),
    }
    box = {
        "embedding": embedding,
        "box": torch.tensor([[0.2, 0.3, 0.7, 0.9]]) * side,
    }
    square = torch.rand(1, 3, scorer.input_size, scorer.input_size) * 255
    masks = ["masks", "ious"]
    # Clicks that pad a prompt to a fixed number would change its masks.
    clicks = {1: torch.export.Dim("clicks", min=1, max=MOST_CLICKS)}
    free = (None, clicks, clicks, None, None)
    parts = {
        "canonicalizer": (PoseLogits(scorer).eval(), {"pixels": square}, ["logits"]),
        "encoder": (encoder, {"pixels": pixels}, ["embedding"]),
        "clicks": (ClickDecoderForExport(sam).eval(), click, masks, free),
        "boxes": (BoxDecoderForExport(sam).eval(), box, masks),
    }
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused layers are not in ONNX
    try:
        return {
            name: _export(folder / f"{name}.onnx", *part)
            for name, part in tqdm(parts.items(), desc="exporting", unit="file")
        }
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)


def _export(path, module, inputs, outputs, free=None):
    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=outputs,
        dynamic_shapes=free,
        verbose=False,
    )
    with write_atomically(path) as temporary:
        program.save(temporary, external_data=False)
    return path


@torch.no_grad()
def check(scorer, sam, paths, files, image_format):
    """Run torch and onnxruntime on photographs; return what is the same, and how much."""
    import onnxruntime

    sessions = {
        name: onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for name, path in paths.items()
    }
    poses, ious = [], {"clicks": [], "boxes": []}
    for file in tqdm(files, desc="checking", unit="photo"):
        image = read_image(file, "RGB")
        poses.append(_same_pose(scorer, sessions["canonicalizer"], image, image_format))
        for kind, value in _mask_ious(sam, sessions, image).items():
            ious[kind].append(value)
    return {
        "same_pose": sum(poses),
        **{
            f"{kind}_{name}_iou": float(of(values))
            for kind, values in ious.items()
            for name, of in (("mean", np.mean), ("smallest", np.min))
        },
    }


def _same_pose(scorer, session, image, image_format):
    pixels = to_chw(image if image_format == "RGB" else image[..., ::-1])
    turns = representative_turns(pixels.permute(1, 2, 0), scorer.group)
    square = scorer.prepare(turned_copy(pixels, turns[0]))[None]
    (logits,) = session.run(None, {"pixels": brighten(square.float()).numpy()})
    return int(logits.argmax() == scorer.logits_of_inputs(square).argmax())


def _mask_ious(sam, sessions, image):
    """Return the IoU of all three masks of a click and of a box with torch's, 1 for empty ones."""
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    height, width = predictor.input_size
    side = sam.image_encoder.img_size
    pixels = predictor.transform.apply_image(image).transpose(2, 0, 1)
    square = np.full((1, 3, side, side), PADDING, np.float32)
    square[0, :, :height, :width] = pixels
    (embedding,) = sessions["encoder"].run(None, {"pixels": square})
    cells = sam.prompt_encoder.image_embedding_size[0]
    coords = torch.tensor([[[width / 2, height / 2]]])
    box = torch.tensor([[0.2 * width, 0.3 * height, 0.7 * width, 0.9 * height]])
    click = {
        "coords": coords.numpy(),
        "labels": np.ones((1, 1), np.int64),
        "mask": np.zeros((1, 1, 4 * cells, 4 * cells), np.float32),
        "has_mask": np.zeros(1, np.float32),
    }
    found = {
        "clicks": predictor.predict_torch(coords, torch.ones(1, 1))[2],
        "boxes": predictor.predict_torch(None, None, box)[2],
    }
    prompts = {"clicks": click, "boxes": {"box": box.numpy()}}
    ious = {}
    for kind, expected in found.items():
        masks = sessions[kind].run(None, {"embedding": embedding, **prompts[kind]})[0] > 0
        wanted = expected.numpy() > 0
        union = (masks | wanted).sum()
        ious[kind] = (masks & wanted).sum() / union if union else 1.0
    return ious


if __name__ == "__main__":
    run_main(main)
