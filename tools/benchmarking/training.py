"""Time training by the prior alone: photographs a second, ours and equiadapt's.

equiadapt's step, as in its segmentation example: images of 1024 x 1024 in, crop, shrink, network,
and then also padding, rotating and cropping of the large image; if the task's losses have a weight,
the segmenter as well. Ours ends at the network, and reads its photographs small.
"""

import tempfile
from pathlib import Path

import torch
from PIL import Image

from benchmarking.peers import Equiadapt
from benchmarking.timing import measure, ratio, summary
from benchmarking.ways import G_WRN, build, picture
from canon_seg.d2.meta_arch import CanonicalizedSegmenter
from canon_seg.errors import InputError
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.resize import network_size
from canon_seg.networks.equivariant import build_trainable_network
from canon_seg.networks.photo_stream import PhotoStream
from canon_seg.networks.scorer import NetworkScorer

from detectron2.utils.events import EventStorage

INPUT_SIZE = 129
BATCH = 8


def time_training(settings, with_peer):
    """Time every part; say how many times as many photographs ours takes.

    Seconds are for each photograph.

    Everything in float32, with the same optimizer. Reading and augmenting counts for ours, as if
    nothing ran beside it, and not for equiadapt.

    Returns:
        (dict that JSON can hold, dict of ratios, None where a peer or escnn is missing).
    """
    keys = ("", "_without_segmenter", "_own_network_without_segmenter")
    keys = [f"training_photos_per_second_over_equiadapt{key}" for key in keys]
    size, batch = (33, 2) if settings.quick else (INPUT_SIZE, BATCH)
    try:
        network = build_trainable_network(G_WRN)
    except InputError as error:
        return {"note": str(error)}, dict.fromkeys(keys)
    step = _our_step(network.to(settings.device), size, batch, settings)
    with tempfile.TemporaryDirectory() as folder:
        functions = {"ours: step": step, "ours: read and augment": _reading(folder, size, batch)}
        counts = dict.fromkeys(functions, batch)
        if with_peer:
            shared = Equiadapt(settings, build_trainable_network(G_WRN), size)
            own = Equiadapt(settings)
            few = 1 if settings.quick else 2
            encoder, pixels = _encoder(settings)
            functions.update(
                {
                    "equiadapt: step with our network": _their_step(shared, batch, settings),
                    "equiadapt: step with its own network": _their_step(own, few, settings),
                    "segmenter: SAM ViT-B's image encoder": lambda: encoder(pixels),
                }
            )
            counts.update(zip(list(functions)[2:], (batch, few, 1), strict=True))
        times = measure(functions, max(2, settings.rounds // 2), settings.device)
    times = {name: values / counts[name] for name, values in times.items()}
    facts = {
        "batch": counts,
        "input_size": size,
        "image_size_of_equiadapt": settings.image_size,
        "seconds_per_photo": {name: summary(values) for name, values in times.items()},
        "note": (
            "photos per second = 1 / seconds per photo; ours = step + read and augment; "
            f"{keys[0]}: equiadapt's step with our network + segmenter; {keys[1]}: without the "
            "segmenter, as equiadapt's example of version 0.1.2 trains at a task weight of 0; "
            f"{keys[2]}: the same with its own G-WRN at {'toy' if settings.quick else 128} px. "
            "The package holds the canonicalizer alone; the step follows its example's."
        ),
    }
    if not with_peer:
        return facts, dict.fromkeys(keys)
    ours, reading, shared, own, segmenter = times.values()
    return facts, {
        key: ratio(theirs, ours + reading)
        for key, theirs in zip(keys, (shared + segmenter, shared, own), strict=True)
    }


def _optimizer(module):
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)


def _our_step(network, size, batch, settings):
    model = (
        CanonicalizedSegmenter(
            canonicalizer=GroupCanonicalizer(NetworkScorer(network, input_size=size)),
            segmenter=None,
            resize=None,
            prior=torch.eye(4)[0],
            prior_weight=100.0,
            task_weight=0.0,
        )
        .to(settings.device)
        .train()
    )
    optimizer = _optimizer(model)
    inputs = [{"image": picture(size, size, seed)} for seed in range(batch)]

    def step():
        with EventStorage():
            loss = sum(model(inputs).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _reading(folder, size, batch):
    files = [Path(folder, f"{number}.jpg") for number in range(batch)]
    for number, file in enumerate(files):
        Image.fromarray(picture(480, 640, number).permute(1, 2, 0).numpy()).save(file, quality=90)
    stream = iter(
        PhotoStream(
            files,
            [1 / batch] * batch,
            batch_size=batch,
            shapes=[network_size(1, 1, size)],
            min_scale=0.6,
            image_format="RGB",
            seed=0,
        )
    )
    return lambda: next(stream)


def _their_step(peer, batch, settings):
    peer.module.train()
    optimizer = _optimizer(peer.module)
    side = settings.image_size
    images = torch.cat([peer.floats(picture(side, side, seed)) for seed in range(batch)])
    return lambda: peer.training_step(optimizer, images)


def _encoder(settings):
    """Return SAM ViT-B's image encoder, without gradients, and its input: the least it can cost."""
    sam = build("sam_vit_b", settings)[0].segmenter.sam
    side = sam.image_encoder.img_size
    pixels = torch.zeros(1, 3, side, side, device=settings.device)
    return torch.no_grad()(sam.image_encoder), pixels
