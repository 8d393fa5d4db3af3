"""Image classification behind a canonicalizer."""

import json
import pickle
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from canon_seg.classification import data as datas
from canon_seg.classification.build import (
    build_model,
    build_pose_finder,
    build_predictor,
    leave_out_embedded,
)
from canon_seg.classification.classifier import (
    CanonicalizedClassifier,
    ConfidenceScorer,
    straight_through,
)
from canon_seg.classification.data import check_classes, hold_out, read_images
from canon_seg.classification.evaluation import evaluate, measure_overhead
from canon_seg.classification.procedural import CLASSES, draw_images
from canon_seg.classification.report import format_modes, format_poses, format_rows, plot_modes
from canon_seg.classification.training import Training, cut_out, learning_share, shifted
from canon_seg.classification.turning import (
    all_canonical,
    tilt_squares,
    turn_squares,
    unique_images,
)
from canon_seg.cli import eval_classification, train, train_classifier
from canon_seg.config.load import load_config
from canon_seg.core.canonicalizer import FixedPoseCanonicalizer
from canon_seg.core.group import SO2, C, D, elements_of
from canon_seg.core.pose import UncertainPoses
from canon_seg.core.scorer import GridDistribution
from canon_seg.core.tilting import Tilting
from canon_seg.core.turn import Turn, inverse
from canon_seg.errors import InputError, InputWarning
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.tilt import warp_to
from canon_seg.networks.square import (
    SquareNetwork,
    SquareScorer,
    SquareSpec,
    build_body,
    load_square,
    save_square,
    upright_logits,
)

CONFIG = "configs/cifar10_c8.yaml"
C8 = C(8)
TINY = [
    *("MODEL.CANONICALIZER.SCORER.BLOCKS", "1", "MODEL.CANONICALIZER.SCORER.PRETRAINED", ""),
    *("MODEL.CANONICALIZER.INPUT_SIZE", "16", "MODEL.CANONICALIZER.WEIGHTS", ""),
    *("MODEL.CLASSIFIER.BLOCKS", "1", "MODEL.CLASSIFIER.PRETRAINED", ""),
    *("MODEL.CLASSIFIER.INPUT_SIZE", "16", "MODEL.CLASSIFIER.WEIGHTS", ""),
    *("INPUT.IMAGE_SIDE", "16", "SOLVER.IMS_PER_BATCH", "8", "SOLVER.WARMUP_ITERS", "1"),
    *("SOLVER.MAX_ITER", "4", "TEST.EVAL_PERIOD", "2", "SOLVER.CHECKPOINT_PERIOD", "2"),
    *("DATASETS.HELD_OUT_IMAGES", "10", "MODEL.DEVICE", "cpu"),
]


@pytest.fixture(autouse=True)
def few_drawn(monkeypatch):
    monkeypatch.setattr(datas, "DRAWN", {"train": 40, "test": 10})


def squares(count=6, side=16, seed=0):
    return torch.randint(
        256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed)
    ).to(torch.uint8)


class Mean(nn.Module):
    """Three classes by the mean colours of the upper half: it knows up from down."""

    def forward(self, images):
        return images[:, :, : images.shape[-1] // 2].float().mean(dim=(-2, -1)) / 10


class BlueAbove(nn.Module):
    """Scores each pose by how blue the upper half of the canonical image would be."""

    image_format = "RGB"

    def __init__(self, group=C8):
        super().__init__()
        self.group = group

    def forward(self, images):
        forms = all_canonical(torch.stack(list(images)), self.group)
        half = forms.shape[-1] // 2
        return GridDistribution(self.group, forms[:, :, 2, :half].float().mean(dim=(-2, -1)))


def sky(count=5, side=24):
    images = squares(count, side) // 8
    images[:, 2, : side // 2] += 150
    return images


def tiny_network(outputs, **options):
    body = build_body(SquareSpec("tf_efficientnet_lite0", 1, outputs), "KEY")
    return SquareNetwork(body, input_size=16, **options).eval()


def config(*options):
    return load_config(CONFIG, [*TINY, *options])


def test_quarter_turns_are_rot90():
    images = squares()
    for quarters in range(4):
        turned = turn_squares(images, Turn(quarters))
        assert np.array_equal(turned, np.rot90(images.numpy(), quarters, (2, 3)))


def test_tilt_agrees_with_opencv_and_counterclockwise():
    (image,) = squares(1, 32)
    smooth = cv2.GaussianBlur(image.permute(1, 2, 0).numpy(), (0, 0), 3)
    matrix = cv2.getRotationMatrix2D((15.5, 15.5), 30, 1.0)  # counterclockwise
    expected = cv2.warpAffine(smooth, matrix, (32, 32), borderMode=cv2.BORDER_REPLICATE)
    given = torch.from_numpy(smooth).permute(2, 0, 1)[None]
    turned = turn_squares(given, Turn.by(30))[0].permute(1, 2, 0).numpy()
    assert np.abs(turned.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("degrees", [45.0, 30.0, 7.3, -22.5])
@pytest.mark.parametrize("side", [15, 32])
def test_tilts_are_those_of_opencv_to_the_bit(degrees, side):
    if int(cv2.__version__.split(".")[0]) != 4:
        pytest.skip(f"OpenCV {cv2.__version__} rounds otherwise than 4")
    images = squares(3, side)
    centre = (side / 2, side / 2)
    tilting = Tilting(degrees, (side, side), (side, side), centre, centre)
    expected = [
        warp_to(image.permute(1, 2, 0).numpy(), tilting, cv2.INTER_LINEAR, None) for image in images
    ]
    tilted = tilt_squares(images, degrees).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(tilted, np.stack(expected))


def test_each_image_by_its_own_turn():
    images, turns = squares(3), [Turn.by(45), Turn(1), Turn.by(45)]
    together = turn_squares(images, turns)
    for k, turn in enumerate(turns):
        assert torch.equal(together[k], turn_squares(images[k : k + 1], turn)[0])


@pytest.mark.parametrize("group", [C8, D(8)])
def test_all_canonical_are_the_images_turned_back(group):
    images = squares(2)
    forms = all_canonical(images, group)
    for k, pose in enumerate(elements_of(group)):
        assert torch.equal(forms[:, k], turn_squares(images, inverse(pose)))


@pytest.mark.parametrize(
    "wrong", [squares().float(), squares()[..., :8], squares()[0], squares()[:, :1]]
)
def test_images_of_another_form_are_refused(wrong):
    with pytest.raises(ValueError, match="are needed, got"):
        turn_squares(wrong, Turn(1))


def test_unique_images():
    images = squares(4)
    found, places = unique_images(images[[2, 0, 2, 3, 0]])
    assert torch.equal(found, images[[2, 0, 3]])
    assert places.tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("group", [C8, C(4), D(4)])
def test_turned_copies_have_the_same_logits_to_the_last_bit(group):
    torch.manual_seed(0)
    predictor = tiny_network(3)
    scorer = SquareScorer(tiny_network(len(elements_of(group))), group=group).eval()
    model = CanonicalizedClassifier(predictor, GroupCanonicalizer(scorer)).eval()
    images = squares(4)
    exact = [turn for turn in elements_of(group) if turn.exact]
    copies = torch.cat([turn_squares(images, turn) for turn in exact])
    poses = model.poses(copies)
    logits = model(copies).view(len(exact), 4, -1)
    forms = model.canonical(copies, poses).view(len(exact), *images.shape)
    for k in range(1, len(exact)):
        assert torch.equal(forms[k], forms[0])
        assert torch.equal(logits[k], logits[0])
    assert len(torch.unique(logits[0], dim=0)) > 1


def test_poses_found_together_are_those_found_one_by_one():
    model = CanonicalizedClassifier(Mean(), GroupCanonicalizer(BlueAbove())).eval()
    images = squares(5)
    for image, pose in zip(images, model.poses(images)):
        alone = model.canonicalizer.pose(image)
        assert pose.turn == alone.turn
        assert np.allclose(pose.probabilities, alone.probabilities, atol=1e-6)


def test_a_good_scorer_brings_turned_images_upright():
    model = CanonicalizedClassifier(Mean(), GroupCanonicalizer(BlueAbove())).eval()
    images = sky()
    for turn in elements_of(C8):
        turned = turn_squares(images, turn)
        poses = model.poses(turned)
        assert [pose.turn for pose in poses] == [turn] * len(images)
        middle = slice(9, 15)  # what no tilt moved out of the square
        upright = model.canonical(turned, poses)[..., middle, middle].float()
        assert (upright - images[..., middle, middle].float()).abs().mean() < 30


def test_votes_are_the_mean_of_probabilities_weighted_by_those_of_the_poses():
    uncertain = UncertainPoses("vote", 1.0, 2)
    finder = GroupCanonicalizer(BlueAbove(), uncertain=uncertain)
    model = CanonicalizedClassifier(Mean(), finder).eval()
    (image,) = images = squares(1)
    (pose,) = model.poses(images)
    assert len(pose.others) == 1
    shared = pose.to_representative[0]
    representative = turn_squares(images, shared)
    expected = torch.stack(
        [
            Mean()(turn_squares(representative, inverse(C8.compose(turn, shared)))).softmax(dim=1)
            for turn in (pose.turn, *pose.others)
        ]
    )
    likely = torch.tensor([pose.probabilities[C8.index(t)] for t in (pose.turn, *pose.others)])
    assert likely[0] > 1.01 * likely[1]
    expected = (likely[:, None, None] * expected).sum(dim=0) / likely.sum()
    assert torch.allclose(model(images).exp(), expected, atol=1e-6)
    sure = CanonicalizedClassifier(Mean(), GroupCanonicalizer(BlueAbove())).eval()
    assert not torch.allclose(sure(images).softmax(dim=1), expected, atol=1e-4)
    assert image.shape == (3, 16, 16)


def test_upright_logits_follow_the_turn():
    finder, images = BlueAbove(), sky()
    turns = [Turn.by(45 * k) for k in range(len(images))]
    turned = finder(turn_squares(images, turns)).logits
    assert (upright_logits(turned, C8, turns).argmax(dim=1) == 0).all()
    expected = GridDistribution(C8, turned)[2].act(inverse(turns[2])).logits[0]
    assert torch.equal(upright_logits(turned, C8, turns)[2], expected)


def test_all_passes_are_equivariant_by_quarter_turns():
    torch.manual_seed(1)
    network = tiny_network(8)
    scorer = SquareScorer(network, group=C8, passes=0).eval()
    images = squares(3)
    with torch.no_grad():
        upright = scorer(images)
        turned = scorer(turn_squares(images, Turn(1)))
        once = SquareScorer(network, group=C8)(images).logits
    assert torch.allclose(upright.act(Turn(1)).logits, turned.logits, atol=1e-4)
    assert not torch.allclose(once.log_softmax(dim=1), upright.logits, atol=1e-4)


def test_straight_through_value_and_gradient():
    images = squares(2)
    logits = torch.randn(2, 8, requires_grad=True)
    canonical = straight_through(images, GridDistribution(C8, logits))
    forms = all_canonical(images, C8).float()
    best = logits.argmax(dim=1)
    assert torch.allclose(canonical, forms[[0, 1], best])
    direction = torch.randn_like(canonical)
    (gradient,) = torch.autograd.grad((canonical * direction).sum(), logits)
    mixture = torch.einsum("bn,bnchw->bchw", logits.softmax(dim=1), forms)
    (expected,) = torch.autograd.grad((mixture * direction).sum(), logits)
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-2)


def test_losses_are_task_plus_weighted_prior():
    torch.manual_seed(0)
    scorer = SquareScorer(tiny_network(8), group=C8).eval()
    predictor = tiny_network(3)
    model = CanonicalizedClassifier(
        predictor, GroupCanonicalizer(scorer), task_weight=2.0, prior_weight=10.0
    ).eval()
    images, labels = squares(4), torch.tensor([0, 1, 2, 0])
    parts = model.losses(images, labels)
    logits = scorer(images).logits
    expected = -logits.log_softmax(dim=1)[:, 0].mean()
    assert parts["prior"].item() == pytest.approx(10 * expected.item(), rel=1e-5)
    canonical = turn_squares(images, [inverse(t) for t in GridDistribution(C8, logits).mode()])
    task = nn.functional.cross_entropy(predictor(canonical), labels)
    assert parts["task"].item() == pytest.approx(2 * task.item(), rel=1e-4)
    sum(parts.values()).backward()
    assert all(p.grad is None for p in predictor.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in scorer.parameters())


def test_a_frozen_predictor_stays_in_eval_mode():
    predictor = tiny_network(3)
    model = CanonicalizedClassifier(predictor).train()
    assert not predictor.training
    assert not any(p.requires_grad for p in model.predictor.parameters())
    assert CanonicalizedClassifier(tiny_network(3), freeze=False).train().predictor.training


def test_any_callable_is_a_predictor_and_others_are_not():
    model = CanonicalizedClassifier(Mean().forward).eval()
    images = squares(3)
    assert torch.equal(model(images), Mean()(images))
    with pytest.raises(TypeError, match="predictor is a int"):
        CanonicalizedClassifier(3)


def test_the_surest_pose_of_the_classifier():
    scorer = ConfidenceScorer(Mean(), group=C8)
    images = sky()
    found = scorer(list(turn_squares(images, Turn(1))))
    assert found.mode() == [Turn(1)] * len(images)


def test_evaluation_by_hand():
    images = sky(3, 16)
    labels = torch.tensor([2, 2, 0])
    data = datas.LabelledImages(images, labels, ("red", "green", "blue"), "here")
    models = {
        "vanilla": CanonicalizedClassifier(Mean()).eval(),
        "canonical": CanonicalizedClassifier(Mean(), GroupCanonicalizer(BlueAbove())).eval(),
    }
    oracle = CanonicalizedClassifier(Mean()).eval()
    result = evaluate(models, data, C8, oracle=oracle)
    json.dumps(result, allow_nan=False)
    assert list(result["modes"]) == ["vanilla", "canonical", "oracle"]
    for mode, values in result["modes"].items():
        assert list(values["by_element"]) == ["0", "45", "90", "135", "180", "225", "270", "315"]
        assert values["group_accuracy"] == pytest.approx(
            np.mean(list(values["by_element"].values()))
        )
        low, high = values["intervals"]["accuracy"]
        assert 0 <= low <= values["accuracy"] <= high <= 100, mode
    right = (Mean()(turn_squares(images, Turn(2))).argmax(dim=1) == labels).float().mean()
    assert result["modes"]["vanilla"]["by_element"]["180"] == pytest.approx(100 * float(right))
    # Two of three are blue above, and the scorer knows how they were turned.
    assert result["modes"]["canonical"]["group_accuracy"] == pytest.approx(200 / 3)
    assert result["modes"]["oracle"] == result["modes"]["canonical"]
    assert result["pose"]["canonical"]["accuracy"] == 1
    assert result["pose"]["canonical"]["alignment"]["wasserstein"] == pytest.approx(0, abs=1e-9)
    assert "vanilla" not in result["pose"]
    assert "| canonical" in format_modes(result)
    assert "poses found 100.0 %" in format_poses(result)
    assert plot_modes(result).axes[0].get_xlabel() == "turned by"


def test_rows_beside_the_paper(tmp_path):
    images = sky(2, 16)
    data = datas.LabelledImages(images, torch.tensor([2, 2]), ("r", "g", "b"), "here")
    models = {"vanilla": CanonicalizedClassifier(Mean()).eval()}
    (tmp_path / "a.json").write_text(json.dumps(evaluate(models, data, C8)))
    rows = [{"label": "as it is", "file": "a.json", "mode": "vanilla", "paper": "vanilla"}]
    table = format_rows({"note": "Here.", "rows": rows}, tmp_path)
    assert "96.97 / 57.77" in table
    assert "| as it is" in table
    assert table.endswith("Here. Percent of 2 images, in brackets 95 % intervals.")


def test_overhead_is_of_each_image_alone():
    model = CanonicalizedClassifier(Mean(), GroupCanonicalizer(BlueAbove())).eval()
    measured = measure_overhead(model, squares(2), repeats=2)
    ratio = measured["canonicalizer_ms"] / measured["classifier_ms"]
    assert measured["overhead"] == pytest.approx(100 * ratio)
    assert measured["classifier_parameters"] == 0


def test_fixed_pose_undoes_it():
    finder = FixedPoseCanonicalizer(Turn(1), C8)
    model = CanonicalizedClassifier(Mean(), finder).eval()
    images = squares(2)
    assert torch.equal(model(turn_squares(images, Turn(1))), Mean()(images))


def test_weights_files_round_trip(tmp_path):
    network = tiny_network(8)
    SquareScorer(network, group=C8).save(tmp_path / "poses.pth")
    again, about = load_square(tmp_path / "poses.pth", "KEY")
    assert about == {"group": "C8"}
    images = squares(2)
    assert torch.allclose(again(images), network(images), atol=1e-2)
    finder = build_pose_finder(
        config("MODEL.CANONICALIZER.WEIGHTS", str(tmp_path / "poses.pth")), Mean()
    )
    assert finder.group == C8
    with pytest.raises(InputError, match="a network of poses, and one of classes"):
        build_predictor(config("MODEL.CLASSIFIER.WEIGHTS", str(tmp_path / "poses.pth")), CLASSES)
    save_square(tmp_path / "classes.pth", tiny_network(5), {"classes": list(CLASSES)})
    options = ["MODEL.CLASSIFIER.WEIGHTS", str(tmp_path / "classes.pth")]
    assert build_predictor(config(*options))[1] == CLASSES
    with pytest.raises(InputError, match="is for classes, not poses"):
        build_model(config("MODEL.CANONICALIZER.WEIGHTS", str(tmp_path / "classes.pth")), CLASSES)
    contents = torch.load(tmp_path / "classes.pth", weights_only=True)
    torch.save({**contents, "spec": {}}, tmp_path / "damaged.pth")
    with pytest.raises(InputError, match=r"damaged\.pth \(KEY\) is damaged"):
        load_square(tmp_path / "damaged.pth", "KEY")
    torch.save({"a": 1}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="is no weights file of a network for square images"):
        load_square(tmp_path / "other.pth", "KEY")


@pytest.mark.parametrize("name", ["resnet10t", "torchvision://squeezenet1_1"])
def test_any_network_by_name(name):
    cfg = config("MODEL.CLASSIFIER.NAME", name, "MODEL.CLASSIFIER.BLOCKS", "0")
    cfg.MODEL.CLASSIFIER.INPUT_SIZE = 32
    model = build_model(cfg_trainable(cfg), CLASSES).eval()
    assert model(squares(2)).shape == (2, len(CLASSES))


def cfg_trainable(cfg):
    cfg.MODEL.CANONICALIZER.TRAINABLE = True
    return cfg


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.CLASSIFIER.NAME", "nothing_net"], "MODEL.CLASSIFIER.*'nothing_net' is no model"),
        (["MODEL.CLASSIFIER.NAME", "torchvision://nothing"], "'nothing' is no image classifier"),
        (["MODEL.CLASSIFIER.BLOCKS", "99"], "MODEL.CLASSIFIER: .* 99 cannot be kept"),
        (
            ["MODEL.CLASSIFIER.NAME", "resnet10t"],
            "MODEL.CLASSIFIER: 'resnet10t' has no list of blocks",
        ),
        (["MODEL.CLASSIFIER.INPUT_SIZE", "8"], "MODEL.CLASSIFIER.INPUT_SIZE: .* at least 16"),
        (["MODEL.CANONICALIZER.GROUP", "SO2"], "GROUP is SO2"),
        (["MODEL.CANONICALIZER.SCORER.PASSES", "3"], "SCORER.PASSES: PASSES is 3"),
        (["MODEL.CLASSIFIER.WEIGHTS", "nowhere.pth"], "MODEL.CLASSIFIER.WEIGHTS: there is no file"),
    ],
)
def test_configs_of_no_use(options, message):
    with pytest.raises(InputError, match=message):
        build_model(cfg_trainable(config(*options)), CLASSES)


def test_drawn_images_are_the_same_again():
    images, labels = draw_images(10, 16, seed=3)
    assert torch.equal(images, draw_images(10, 16, seed=3)[0])
    assert not torch.equal(images, draw_images(10, 16, seed=4)[0])
    assert labels.tolist() == [0, 1, 2, 3, 4] * 2
    assert images.shape == (10, 3, 16, 16)


def test_class_folders(tmp_path):
    for name, size in (("cat", (20, 30)), ("ant", (16, 16))):
        (tmp_path / name).mkdir()
        Image.new("RGB", size, (250, 0, 0)).save(tmp_path / name / "a.png")
    found = read_images(str(tmp_path), "test", 16, "--data")
    assert found.classes == ("ant", "cat")
    assert found.labels.tolist() == [0, 1]
    assert found.images.shape == (2, 3, 16, 16)
    assert (found.images[:, 0] == 250).all()
    with pytest.raises(InputError, match="--data: the classes are ant, cat, and the classifier"):
        check_classes(found, ("bee", "cat"), "--data")
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="holds no folder for each class"):
        read_images(str(tmp_path), "test", 16, "--data")
    (tmp_path / "test" / "ant").mkdir()
    with pytest.raises(InputError, match="--data: .*ant holds no photograph"):
        read_images(str(tmp_path), "test", 16, "--data")
    Image.new("RGB", (4, 40)).save(tmp_path / "test" / "ant" / "thin.png")
    with pytest.raises(InputError, match=r"thin\.png is 4 x 40 pixels; 8 are the least"):
        read_images(str(tmp_path), "test", 16, "--data")
    (tmp_path / "test" / "ant" / "thin.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"--data: \S*thin\.png: is not an image"):
        read_images(str(tmp_path), "test", 16, "--data")
    with pytest.raises(InputError, match="--data: there is no folder nowhere"):
        read_images("nowhere", "test", 16, "--data")


def test_files_of_class_folders_are_read_as_everywhere(tmp_path):
    """Upright by EXIF, 16 bits scaled, in folders below; what is skipped is said."""
    (tmp_path / "ant" / "deep").mkdir(parents=True)
    (tmp_path / ".cache").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "ant" / "a.png", exif=exif)
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(grey).save(tmp_path / "ant" / "deep" / "b.png")
    (tmp_path / "ant" / "c.txt").touch()
    with pytest.warns(InputWarning, match=r"--data: .*ant: 1 file is skipped.* 1 \.txt"):
        found = read_images(str(tmp_path), "test", 16, "--data")
    assert found.classes == ("ant",)
    assert np.array_equal(found.images[0].permute(1, 2, 0), np.rot90(pixels, -1))
    assert np.array_equal(found.images[1, 0], grey // 257)


def write_cifar(folder, labels=(3, 9)):
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    names = [f"class{k}" for k in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))
    for name in ("test_batch", *(f"data_batch_{k}" for k in range(1, 6))):
        batch = {"data": pixels, "labels": list(labels)}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return pixels


def test_cifar_as_torchvision_has_it(tmp_path):
    pixels = write_cifar(tmp_path / "cifar-10-batches-py")
    found = read_images(str(tmp_path), "test", 32, "--data")
    # As torchvision.datasets.CIFAR10 does.
    expected = np.vstack([pixels]).reshape(-1, 3, 32, 32)
    assert np.array_equal(found.images, expected)
    assert found.labels.tolist() == [3, 9]
    assert found.classes[3] == "class3"
    assert len(read_images(str(tmp_path), "train", 32, "--data")) == 10
    assert read_images(str(tmp_path), "test", 16, "--data").images.shape == (2, 3, 16, 16)
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    batch.write_bytes(batch.read_bytes()[:200])
    with pytest.raises(InputError, match="test_batch"):
        read_images(str(tmp_path), "test", 32, "--data")
    batch.write_bytes(pickle.dumps({"data": pixels[:, :7], "labels": [1, 2]}, protocol=2))
    with pytest.raises(InputError, match="test_batch is damaged or no file of CIFAR-10"):
        read_images(str(tmp_path), "test", 32, "--data")
    batch.unlink()
    with pytest.raises(InputError, match="test_batch is missing"):
        read_images(str(tmp_path), "test", 32, "--data")


@pytest.mark.parametrize("labels", [(3, 10), (-1, 2)])
def test_labels_out_of_range(tmp_path, labels):
    write_cifar(tmp_path / "cifar-10-batches-py", labels)
    with pytest.raises(InputError, match="labels reach from"):
        read_images(str(tmp_path), "test", 32, "--data")


def test_packed_images(tmp_path):
    images = np.zeros((2, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "test.npz", images=images, labels=np.array([0, 1]), classes=["a", "b"])
    assert read_images(str(tmp_path), "test", 16, "--data").classes == ("a", "b")
    np.savez(tmp_path / "test.npz", images=images[..., :2], labels=[0, 1], classes=["a", "b"])
    with pytest.raises(InputError, match=r"test\.npz is damaged or does not hold"):
        read_images(str(tmp_path), "test", 16, "--data")
    for wrong, said in (
        (dict(images=images / 255), "images are float64, not uint8"),
        (dict(labels=np.array([0.0, 1.5])), "labels are float64 .* not N integers"),
        (dict(labels=np.array([[0], [1]])), r"int64 of the shape \(2, 1\), not N integers"),
    ):
        right = dict(images=images, labels=np.array([0, 1]), classes=["a", "b"])
        np.savez(tmp_path / "test.npz", **(right | wrong))
        with pytest.raises(InputError, match=rf"test\.npz is damaged .*{said}"):
            read_images(str(tmp_path), "test", 16, "--data")
    np.savez(tmp_path / "test.npz", images=images, labels=np.array([0]), classes=["a", "b"])
    with pytest.raises(InputError, match="2 images and 1 labels"):
        read_images(str(tmp_path), "test", 16, "--data")


def test_held_out_images_are_not_trained_on():
    data = read_images("", "train", 16, "KEY")
    data = data.at(slice(0, 40))
    rest, held_out = hold_out(data, 10)
    assert (len(rest), len(held_out)) == (30, 10)
    both = torch.cat([rest.images, held_out.images])
    assert len(unique_images(both)[0]) == 40


def test_shifted_images_keep_their_edges():
    images = squares(8)
    moved = shifted(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert not torch.equal(moved, images)
    assert set(moved.unique().tolist()) <= set(images.unique().tolist())


def test_each_image_is_shifted_by_itself():
    images = squares(64, 16)
    moved = shifted(images, torch.Generator().manual_seed(0))
    # By 2 pixels of 16 at most: each is one of 25 crops of the padded image.
    padded = nn.functional.pad(images.float(), (2,) * 4, mode="replicate").to(images.dtype)
    places = set()
    for image, given in zip(moved, padded, strict=True):
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(image, given[:, top : top + 16, left : left + 16])
        ]
        assert len(found) == 1
        places |= set(found)
    assert len(places) > 15


def test_a_square_is_cut_out_of_each_image():
    images = torch.zeros(200, 3, 16, 16, dtype=torch.uint8)
    cut = cut_out(images, 4, torch.Generator().manual_seed(0))
    assert cut.unique().tolist() == [0, 128]
    assert torch.equal(cut[:, 0], cut[:, 1])
    hidden = (cut[:, 0] == 128).sum(dim=(1, 2))
    assert hidden.max() == 16 and hidden.min() >= 4  # a corner of it at least
    assert (cut[:, 0] == 128).any(dim=0).all()


def test_averaged_weights_are_written_and_gone_on_with(tmp_path):
    options = ("SOLVER.EMA_DECAY", "0.5", "INPUT.CUTOUT", "0.25", "SOLVER.BFLOAT16", "True")
    training = Training(config(*options))
    batches = training._batches()
    weights = []
    for _ in range(2):
        training._train_on(*next(batches))
        weights.append(training.model.canonicalizer.scorer.network.network.classifier.bias.clone())
    averaged = training.result.canonicalizer.scorer.network.network.classifier.bias
    assert torch.allclose(averaged, (weights[0] + weights[1]) / 2, atol=1e-7)
    assert not torch.equal(averaged, weights[1])
    training.save(tmp_path / "last.pth")
    again = Training(config(*options))
    again.load(tmp_path / "last.pth")
    assert torch.equal(again.result.canonicalizer.scorer.network.network.classifier.bias, averaged)
    training.write_results(tmp_path)
    written = torch.load(tmp_path / "canonicalizer.pth", weights_only=True)["state"]
    assert torch.equal(written["classifier.bias"], averaged.half())


def test_learning_rate():
    assert learning_share(0, 10, 1) == 0.5
    assert learning_share(1, 10, 1) == 1
    assert learning_share(10, 10, 1) == pytest.approx(0)


def test_a_training_goes_on_as_if_it_had_not_stopped(tmp_path):
    whole, first, second = (tmp_path / name for name in ("whole", "parts", "parts"))
    for folder in (whole, first):
        folder.mkdir(exist_ok=True)
    Training(config()).run(whole)
    training = Training(config())
    training.run(first)
    # Back to the checkpoint in the middle: the last one is written over it.
    half = Training(config())
    half.cfg.SOLVER.CHECKPOINT_PERIOD = 100
    steps = half._batches()
    for _ in range(2):
        half._train_on(*next(steps))
    half.save(second / "last.pth")
    Training(config()).run(second, resume=True)
    ours, theirs = (
        torch.load(folder / "canonicalizer.pth", weights_only=True)["state"]
        for folder in (whole, second)
    )
    assert ours.keys() == theirs.keys()
    lines = (whole / "metrics.json").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [2, 4]
    assert {"loss_prior", "accuracy", "pose_accuracy", "poses_entropy"} <= set(json.loads(lines[0]))
    assert not (whole / "classifier.pth").exists()


def test_a_scorer_starts_from_the_first_blocks_of_a_classifier(tmp_path):
    longer = SquareNetwork(
        build_body(SquareSpec("tf_efficientnet_lite0", 2, 5), "KEY"), input_size=16
    )
    save_square(tmp_path / "classifier.pth", longer, {"classes": list(CLASSES)})
    path = str(tmp_path / "classifier.pth")
    model = build_model(
        cfg_trainable(config("MODEL.CANONICALIZER.SCORER.PRETRAINED", path)), CLASSES
    )
    ours = model.canonicalizer.scorer.network.network.blocks[0][0].conv_dw.weight
    assert torch.allclose(ours, longer.network.blocks[0][0].conv_dw.weight, atol=1e-2)
    with pytest.raises(InputError, match="holds weights of another backbone"):
        build_model(
            cfg_trainable(
                config(
                    *("MODEL.CANONICALIZER.SCORER.PRETRAINED", path),
                    *("MODEL.CANONICALIZER.SCORER.BLOCKS", "3"),
                )
            ),
            CLASSES,
        )


def test_frozen_stages_stay_as_they_are(tmp_path):
    cfg = config(
        *("MODEL.CLASSIFIER.FREEZE", "False", "MODEL.CANONICALIZER.NAME", "IdentityCanonicalizer"),
        *("MODEL.CLASSIFIER.BLOCKS", "2", "MODEL.CLASSIFIER.FREEZE_STAGES", "1"),
    )
    training = Training(cfg)
    body = training.model.predictor.network
    frozen = {n: v.clone() for n, v in body.state_dict().items() if n.startswith(("conv", "bn1"))}
    frozen |= {n: v.clone() for n, v in body.state_dict().items() if n.startswith("blocks.0")}
    rest = body.blocks[1][0].conv_dw.weight.detach().clone()
    training.run(tmp_path)
    after = body.state_dict()
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    assert not torch.equal(body.blocks[1][0].conv_dw.weight, rest)
    cfg.MODEL.CLASSIFIER.FREEZE_STAGES = 3
    with pytest.raises(InputError, match=r"MODEL\.CLASSIFIER\.FREEZE_STAGES is 3, and 2 stages"):
        Training(cfg)


def test_joint_training_changes_both(tmp_path):
    cfg = config(
        *("MODEL.CLASSIFIER.FREEZE", "False", "MODEL.CANONICALIZER.TASK_WEIGHT", "1.0"),
        *("SOLVER.MAX_ITER", "2", "MODEL.CANONICALIZER.PRIOR_WEIGHT", "0.0"),
    )
    training = Training(cfg)
    before = [p.detach().clone() for group in training.groups.values() for p in group]
    training.run(tmp_path)
    after = [p for group in training.groups.values() for p in group]
    assert all(not torch.equal(a, b) for a, b in zip(before, after) if a.ndim > 1)
    assert (tmp_path / "canonicalizer.pth").is_file()
    assert (tmp_path / "classifier.pth").is_file()


@pytest.mark.skipif(find_spec("escnn") is None, reason="escnn is not installed")
@pytest.mark.parametrize(
    "options",
    [
        ("SOLVER.EMA_DECAY", "0.9"),
        ("MODEL.CANONICALIZER.SCORER.BLOCKS", "2"),
        ("MODEL.CLASSIFIER.FREEZE", "False", "MODEL.CANONICALIZER.TASK_WEIGHT", "1.0"),
    ],
)
def test_a_training_with_another_config_is_not_gone_on_with(tmp_path, options):
    Training(config()).save(tmp_path / "last.pth")
    with pytest.raises(InputError, match="last.pth was written by a training with another config"):
        Training(config(*options)).run(tmp_path, resume=True)


def test_smoothed_classes_in_the_task():
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    model = CanonicalizedClassifier(
        lambda images: logits.expand(len(images), 3), None, task_weight=1.0, class_smoothing=0.3
    )
    (loss,) = model.losses(squares(2), torch.tensor([0, 0])).values()
    shares = logits[0].log_softmax(dim=0)
    assert float(loss) == pytest.approx(float(-(0.7 * shares[0] + 0.1 * shares.sum())), abs=1e-6)


def test_drawn_images_are_trained_on_without_embedded_weights():
    cfg = config(
        *("MODEL.CLASSIFIER.WEIGHTS", "mine.pth"),
        *("MODEL.CANONICALIZER.WEIGHTS", "canon_seg://canonicalizer_cifar10.pth"),
    )
    leave_out_embedded(cfg)
    assert cfg.MODEL.CLASSIFIER.WEIGHTS == "mine.pth" and cfg.MODEL.CANONICALIZER.WEIGHTS == ""


def test_long_cut_backbones_can_be_built():
    body = build_body(SquareSpec("tf_efficientnet_lite0", 16, 8), "KEY")
    assert body.training and body(torch.zeros(2, 3, 64, 64)).shape == (2, 8)


def test_an_equivariant_network_learns_from_upright_images(tmp_path):
    cfg = config(
        *("MODEL.CANONICALIZER.SCORER.NAME", "NetworkScorer", "SOLVER.MAX_ITER", "2"),
        *("MODEL.CANONICALIZER.SCORER.BACKBONE", "", "MODEL.CANONICALIZER.INPUT_SIZE", "33"),
        *("MODEL.CANONICALIZER.NETWORK.FIELDS", "[1, 1]", "MODEL.CANONICALIZER.NETWORK.DEPTH", "1"),
    )
    training = Training(cfg)
    assert training.turns is None
    training.run(tmp_path)
    again = config(
        *("MODEL.CANONICALIZER.SCORER.NAME", "NetworkScorer"),
        *("MODEL.CANONICALIZER.SCORER.BACKBONE", ""),
        *("MODEL.CANONICALIZER.WEIGHTS", str(tmp_path / "canonicalizer.pth")),
    )
    finder = build_pose_finder(again, Mean())
    assert finder.group == C8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SOLVER.IMS_PER_BATCH", "64"], "SOLVER.IMS_PER_BATCH is 64, and there are 30"),
        (["MODEL.CANONICALIZER.NAME", "IdentityCanonicalizer"], "there is nothing to train"),
        (["INPUT.TURNS", "C0"], "INPUT.TURNS: 'C0' is no group"),
        (["INPUT.CUTOUT", "1.5"], "INPUT.CUTOUT is 1.5; give at least 0"),
        (["SOLVER.EMA_DECAY", "1.0"], "SOLVER.EMA_DECAY is 1.0; give at least 0"),
        (["MODEL.CLASSIFIER.LABEL_SMOOTHING", "1.0"], "MODEL.CLASSIFIER.LABEL_SMOOTHING is 1.0"),
        (
            ["MODEL.CLASSIFIER.WEIGHTS", "canon_seg://classifier_cifar10.pth"],
            "MODEL.CLASSIFIER.WEIGHTS are of 10 classes, and DATASETS.CLASSES has 5",
        ),
    ],
)
def test_trainings_of_no_use(options, message):
    with pytest.raises(InputError, match=message):
        Training(config(*options))


def run_main(monkeypatch, module, *words):
    monkeypatch.setattr(sys, "argv", ["command", *words])
    return module.main()


def test_commands_on_drawn_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval_classification, "DRAWN_STEPS", 2)
    monkeypatch.setattr(eval_classification, "DRAWN_BLOCKS", 1)
    options = ["INPUT.IMAGE_SIDE", "16", "DATASETS.HELD_OUT_IMAGES", "10", "MODEL.DEVICE", "cpu"]
    monkeypatch.setattr(datas, "DRAWN", {"train": 80, "test": 10})
    output = tmp_path / "out"
    words = ["--config-file", CONFIG, "--group", "C8", "--output", str(output), *options]
    run_main(
        monkeypatch,
        eval_classification,
        *words,
        "--modes",
        "vanilla",
        "canonical",
        "oracle",
        "orbit",
    )
    printed = capsys.readouterr()
    assert "which are no CIFAR-10" in printed.err
    assert "written:" in printed.out
    result = json.loads((output / "classification.json").read_text())
    assert set(result["modes"]) == {"vanilla", "canonical", "oracle", "orbit"}
    assert result["num_images"] == 10
    assert result["overhead"]["classifier_parameters"] > 0
    assert (output / "classification.png").is_file()


def test_train_command_chooses_by_the_config(tmp_path, monkeypatch, capsys):
    words = ["--config-file", CONFIG, *TINY, "OUTPUT_DIR", str(tmp_path)]
    run_main(monkeypatch, train, *words)
    assert "canonicalizer.pth; of 10 held-out: accuracy" in capsys.readouterr().out
    with pytest.raises(InputError, match="holds canonicalizer.pth, last.pth of an earlier"):
        run_main(monkeypatch, train, *words)
    assert train._architecture(["--config-file", "configs/sam_c4.yaml"]) != (
        "CanonicalizedClassifier"
    )
    assert train._architecture(["--config-file=nowhere.yaml"]) == ""
    assert train_classifier.RESULTS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-file", "configs/sam_c4.yaml"], "MODEL.META_ARCHITECTURE is"),
        (["--config-file", CONFIG, "--group", "SO2"], "--group SO2 is continuous"),
        (["--config-file", CONFIG, "--group", "X"], "--group: 'X' is no group"),
        (["--config-file", CONFIG, "--limit", "-1"], "--limit is -1"),
        (["--config-file", CONFIG, "--data", "nowhere"], "--data: there is no folder"),
    ],
)
def test_command_lines_of_no_use(tmp_path, monkeypatch, words, message):
    with pytest.raises(InputError, match=message):
        run_main(monkeypatch, eval_classification, *words, "--output", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_angle_group_cannot_be_chosen_among():
    class Angles(nn.Module):
        group, image_format = SO2, "RGB"

        def forward(self, images):
            from canon_seg.core.scorer import CircularDistribution

            return CircularDistribution(torch.zeros(len(images), 72))

    model = CanonicalizedClassifier(Mean(), GroupCanonicalizer(Angles()), prior=torch.ones(1))
    with pytest.raises(ValueError, match="SO2 has no list of poses"):
        model.losses(squares(2), torch.zeros(2, dtype=torch.int64))
