import pytest
import torch
from tiny_models import random_image
from torch import nn

from canon_seg.config.load import load_config
from canon_seg.core.group import C4
from canon_seg.core.prior import TEACHER
from canon_seg.core.scorer import GridDistribution
from canon_seg.errors import InputError
from canon_seg.networks.teacher import TaughtLoader, build_teacher


class Brightness(nn.Module):
    """A scorer that is surer of the first pose the brighter an image is."""

    group, image_format = C4, "RGB"

    def forward(self, images):
        rows = [[float(image.float().mean()) / 64, 1.0, 0.0, -1.0] for image in images]
        return GridDistribution(self.group, torch.tensor(rows))


def config(weights, **options):
    words = ["MODEL.CANONICALIZER.TEACHER.WEIGHTS", str(weights), "MODEL.DEVICE", "cpu"]
    for key, value in options.items():
        words += [f"MODEL.CANONICALIZER.TEACHER.{key}", str(value)]
    return load_config("", words)


def test_each_view_gets_what_the_teacher_says_of_it():
    batches = [
        [{"image": torch.full((3, 8, 9), 64.0), "file_name": "a"}],
        [{"image": torch.full((3, 8, 8), 0.0)}, {"image": torch.full((3, 9, 8), 128.0)}],
    ]
    (first,), (second, third) = TaughtLoader(batches, Brightness())
    assert first["file_name"] == "a" and TEACHER not in batches[0][0]
    for example, score in ((first, 1.0), (second, 0.0), (third, 2.0)):
        expected = torch.tensor([score, 1.0, 0.0, -1.0]).softmax(dim=0)
        torch.testing.assert_close(example[TEACHER], expected)


def test_nothing_of_the_teacher_is_rounded_by_the_students_autocast():
    batch = [{"image": random_image(40, 40)}]
    teacher = build_teacher(config("canon_seg://canonicalizer_gcnn.pth"))
    (plain,) = next(iter(TaughtLoader([batch], teacher)))
    with torch.autocast("cpu", torch.bfloat16):
        (rounded,) = next(iter(TaughtLoader([batch], teacher)))
    assert torch.equal(plain[TEACHER], rounded[TEACHER])


def test_an_equivariant_teacher_at_its_own_size_and_at_another():
    image = random_image(60, 80)
    own = build_teacher(config("canon_seg://canonicalizer_gcnn.pth"))
    small = build_teacher(config("canon_seg://canonicalizer_gcnn.pth", INPUT_SIZE=65))
    assert not own.training and own.input_size == 97 and small.input_size == 65
    assert not torch.equal(own([image]).logits, small([image]).logits)


def test_a_pretrained_teacher():
    pytest.importorskip("timm", reason="timm is not installed")
    teacher = build_teacher(config("canon_seg://canonicalizer_pretrained.pth", INPUT_SIZE=64))
    assert (teacher.input_size, teacher.passes, teacher.training) == (64, 1, False)
    assert len(teacher([random_image(60, 80), random_image(80, 60)])) == 2


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, r"no file|not there|does not exist|there is no"),
        ({"format": "something else"}, "no canonicalizer's weights file"),
        (
            {
                "format": "canon_seg.pose_network",
                "version": 1,
                "group": "D4",
                "backbone": "tf_efficientnet_lite0",
                "input_size": 64,
                "temperatures": {},
                "state": {},
            },
            "trained for the group D4",
        ),
    ],
)
def test_a_teacher_that_cannot_be_used_is_named_by_its_own_key(tmp_path, contents, message):
    path = tmp_path / "teacher.pth"
    if contents is not None:
        torch.save(contents, path)
    with pytest.raises(InputError, match=message) as caught:
        build_teacher(config(path))
    assert str(path) in str(caught.value)
    assert "MODEL.CANONICALIZER.TEACHER.WEIGHTS" in str(caught.value)
    assert "MODEL.CANONICALIZER.WEIGHTS" not in str(caught.value)


@pytest.mark.parametrize("network", ["gcnn", "pretrained"])
def test_a_size_that_is_too_small(network):
    if network == "pretrained":
        pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(InputError, match=r"TEACHER\.INPUT_SIZE.* 1\b"):
        build_teacher(config(f"canon_seg://canonicalizer_{network}.pth", INPUT_SIZE=1))
