import math

import numpy as np
import pytest
import torch
from tiny_models import (
    canonicalized,
    random_canonicalizer,
    random_image,
    random_prompts,
    tiny_segmenter,
)

from canon_seg import CanonicalImagePredictor, CanonicalSamPredictor
from canon_seg.core.frame import CanonicalFrame
from canon_seg.core.group import C4
from canon_seg.core.pose import UncertainPoses
from canon_seg.core.scorer import SCORERS, Scorer
from canon_seg.core.turn import Turn
from canon_seg.d2.cache import ResultCache
from canon_seg.d2.config import load_config
from canon_seg.d2.judge import bound_to_model, detector_confidence, energy_of
from canon_seg.errors import InputError
from canon_seg.images.arrays import turn_image, turn_maps
from canon_seg.images.canonicalizer import GroupCanonicalizer
from canon_seg.images.energy import (
    ENERGIES,
    EnergyScorer,
    SegmenterScorer,
    check_energy,
)
from canon_seg.networks.build import build_canonicalizer
from canon_seg.sam.canonical import CanonicalSam
from canon_seg.sam.confidence import SamGridScorer, confidence, grid, sam_judge
from canon_seg.sam.prompted import PromptedSam

from detectron2.structures import Instances

KEY = "MODEL.CANONICALIZER.SCORER"
HEIGHT, WIDTH = 40, 61


@ENERGIES.register("brightness below of a test")
def bright_below(image):
    """Low where the lower half of the image is dark."""
    return image[:, image.shape[1] // 2 :].float().mean()


def photo(seed=0):
    return random_image(HEIGHT, WIDTH, seed)


def sky():
    """Bright above."""
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    image[:, : HEIGHT // 2] = 200
    image[0, 0, 0] = 7  # no turn of itself
    return image


def test_the_lowest_energy_is_the_pose():
    canonicalizer = GroupCanonicalizer(EnergyScorer(bright_below))
    assert isinstance(canonicalizer.scorer, Scorer)
    for turn in C4.elements:
        pose = canonicalizer.pose(turn_maps(sky(), turn))
        assert pose.turn == turn
        assert turn_maps(turn_maps(sky(), turn), pose.to_canonical).equal(sky())


def test_energies_become_probabilities_by_the_temperature():
    energies = iter([0.1, 0.4, 0.2, 0.3] * 2)
    for temperature in (1.0, 0.1):
        scorer = EnergyScorer(lambda image: next(energies), temperature=temperature)
        found = scorer([photo()]).probabilities[0].numpy()
        expected = np.exp(-np.array([0.1, 0.4, 0.2, 0.3]) / temperature)
        np.testing.assert_allclose(found, expected / expected.sum())


def test_an_energy_from_a_config():
    name = "brightness below of a test"
    cfg = load_config(
        "sam_tiny_c4.yaml",
        [f"{KEY}.NAME", "EnergyScorer", f"{KEY}.ENERGY", name, f"{KEY}.TEMPERATURE", 3],
    )
    canonicalizer = build_canonicalizer(cfg)
    assert canonicalizer.scorer.energy is bright_below and canonicalizer.scorer.temperature == 3
    assert canonicalizer.pose(turn_maps(sky(), 3)).turn == Turn(3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "the energy of an image is nan"),
        (torch.tensor(float("inf")), "the energy of an image is inf"),
        (torch.zeros(2), r"gave the shape \(2,\)"),
        (np.zeros((1, 3)), r"gave the shape \(1, 3\)"),
        (torch.zeros(0), r"gave the shape \(0,\)"),
        (None, "gave None"),
        ("low", "gave 'low'"),
    ],
)
def test_energies_that_are_no_numbers(value, message):
    with pytest.raises(InputError, match=f"{KEY}.ENERGY: the energy of an image.*"):
        check_energy(value)
    with pytest.raises(InputError, match=message):
        GroupCanonicalizer(EnergyScorer(lambda image: value)).pose(photo())


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), torch.ones(1, 1), np.ones(1)])
def test_energies_that_are_numbers(value):
    assert check_energy(value) == 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), math.inf])
def test_temperatures_that_are_of_no_use(temperature):
    with pytest.raises(InputError, match=f"{KEY}.TEMPERATURE is {temperature}"):
        EnergyScorer(bright_below, temperature=temperature)


def test_an_energy_that_is_not_registered():
    cfg = load_config("sam_tiny_c4.yaml", [f"{KEY}.NAME", "EnergyScorer"])
    with pytest.raises(InputError, match=f"{KEY}.ENERGY: '' is not a registered energy; known: "):
        build_canonicalizer(cfg)


def test_a_segmenter_scorer_without_a_segmenter():
    assert "SegmenterScorer" in SCORERS
    canonicalizer = build_canonicalizer(load_config("", [f"{KEY}.NAME", "SegmenterScorer"]))
    with pytest.raises(InputError, match=f"{KEY}.NAME is SegmenterScorer, but there is no segmen"):
        canonicalizer.pose(photo())
    model = canonicalized(None, canonicalizer)
    with pytest.raises(InputError, match="no segmenter to ask; set MODEL.SEGMENTER.META_ARCHIT"):
        model([{"image": photo()}])


# --- the segmenter as judge -----------------------------------------------------------------------


def judge(**options):
    return GroupCanonicalizer(SegmenterScorer(temperature=0.01, **options)).eval()


def inputs_of(kind, image=None, turn=0):
    image = photo() if image is None else image
    inputs = {"image": turn_maps(image, turn).contiguous()}
    if kind == "sam":
        inputs["prompts"] = random_prompts(HEIGHT, WIDTH).snapped().turned(turn, HEIGHT, WIDTH)
    return inputs


def counted(segmenter):
    runs = []
    segmenter.register_forward_hook(lambda module, args, result: runs.append(len(args[0])))
    return runs


@pytest.mark.parametrize("kind", ["mask_rcnn", "sam"])
@pytest.mark.parametrize("cached", [False, True])
def test_the_winning_run_is_kept(kind, cached):
    segmenter = tiny_segmenter(kind)
    runs = counted(segmenter)
    cache = ResultCache(2**22) if cached else None
    model = canonicalized(segmenter, judge(), cache=cache)
    model([inputs_of(kind)])
    assert runs == [1] * 4  # one run in each pose, and none again
    model([inputs_of(kind, turn=1)])
    assert len(runs) == (4 if cached else 8)


@pytest.mark.parametrize("kind", ["mask_rcnn", "sam"])
def test_the_pose_is_that_of_the_surest_run(kind):
    """Found without the judge: the plain segmenter on the four turns, and the surest of them."""
    segmenter = tiny_segmenter(kind)
    model, chosen = canonicalized(segmenter, judge()), set()
    for seed in range(3):
        given = inputs_of(kind, photo(seed))
        plain = canonicalized(segmenter, random_canonicalizer())
        energies = []
        for turn in C4.elements:
            inputs = inputs_of(kind, photo(seed), turn)
            result = plain._segment(
                [{**inputs, "height": inputs["image"].shape[1], "width": inputs["image"].shape[2]}]
            )[0]
            found = result["instances"]
            energies.append(
                -float(
                    (found.pred_ious.double().mean() + found.pred_stabilities.double().mean()) / 2
                )
                if kind == "sam"
                else -float(found.scores.double().max())
            )
        ours = model([given])[0]
        # The image is turned by k to its canonical form, so its pose is the inverse of k.
        assert ours["pose"].to_canonical == C4.elements[int(np.argmin(energies))]
        chosen.add(ours["pose"].turns)
        likely = np.exp(-(np.array(energies) - min(energies)) / 0.01)
        likely /= likely.sum()
        np.testing.assert_allclose(
            [ours["pose"].probabilities[-k % 4] for k in range(4)], likely, rtol=1e-9
        )
    assert chosen != {0}


def test_a_vote_takes_the_runs_that_are_there():
    segmenter = tiny_segmenter("mask_rcnn")
    runs, canonicalizer = counted(segmenter), judge()
    canonicalizer.uncertain = UncertainPoses("vote", 1.0, 4)
    ours = canonicalized(segmenter, canonicalizer)([inputs_of("mask_rcnn")])[0]
    assert len(runs) == 4 and len(ours["pose"].others) == 3
    # The same poses, voted on by a canonicalizer that is told of them.
    told = random_canonicalizer("BGR")
    told.pose = lambda image, prompt_key=None: ours["pose"]
    theirs = canonicalized(segmenter, told)([inputs_of("mask_rcnn")])[0]
    assert torch.equal(ours["instances"].scores, theirs["instances"].scores)
    assert torch.equal(ours["instances"].pred_masks, theirs["instances"].pred_masks)


def test_sam_without_detectron2_judges_the_same():
    segmenter = tiny_segmenter("sam")
    given = inputs_of("sam")
    theirs = canonicalized(segmenter, judge())([given])[0]
    pose, masks = CanonicalSam(judge(), PromptedSam(segmenter.sam))(
        given["image"], given["prompts"]
    )
    assert pose == theirs["pose"]
    assert torch.equal(masks.masks, theirs["instances"].pred_masks)
    assert torch.equal(masks.stabilities, theirs["instances"].pred_stabilities)


def test_the_predictor_keeps_the_embedding_of_the_winning_run():
    sam = tiny_segmenter("sam").sam
    runs = counted(sam.image_encoder)
    predictor = CanonicalSamPredictor(sam, sam_judge(sam))
    pixels = photo().permute(1, 2, 0).numpy()
    box, found = np.array([5.0, 4, 40, 30]), []
    predictor.set_image(pixels)
    assert len(runs) == 4
    for image_format in ("RGB", "BGR"):
        given = pixels if image_format == "RGB" else np.ascontiguousarray(pixels[..., ::-1])
        predictor.set_image(given, image_format)
        found.append((predictor.pose, *predictor.predict(box=box)))
    assert found[0][0] == found[1][0] and np.array_equal(found[0][1], found[1][1])
    # As a predictor that is told the pose.
    told = random_canonicalizer()
    told.pose = lambda image, prompt_key=None: found[0][0]
    other = CanonicalSamPredictor(sam, told)
    other.set_image(pixels)
    for ours, theirs in zip(found[0][1:], other.predict(box=box), strict=True):
        assert np.array_equal(ours, theirs)


def test_the_predictor_binds_a_judge_of_a_config_to_its_sam():
    sam = tiny_segmenter("sam").sam
    predictor = CanonicalSamPredictor(sam, judge())
    assert isinstance(predictor.canonicalizer.scorer, SamGridScorer)
    predictor.set_image(photo().permute(1, 2, 0).numpy())
    expected = CanonicalSamPredictor(sam, sam_judge(sam))
    expected.set_image(photo().permute(1, 2, 0).numpy())
    assert predictor.pose == expected.pose


class OtherPredictor:
    def set_image(self, image):
        self.image = image

    def predict(self, **options):
        return self.image[None, :, :, 0] > 100, np.ones(1), np.zeros((1, 4, 4))


def test_a_users_energy_behind_any_predictor():
    predictor = CanonicalImagePredictor(
        OtherPredictor(), GroupCanonicalizer(EnergyScorer(bright_below))
    )
    pixels = sky().permute(1, 2, 0).numpy()
    for turn in C4.elements:
        predictor.set_image(np.ascontiguousarray(turn_image(pixels, turn)))
        assert predictor.pose.turn == turn
        masks, _, _ = predictor.predict(box=np.array([2.0, 3, 20, 20]))
        assert np.array_equal(masks[0], turn_maps(sky()[0].numpy() > 100, turn))


def test_the_grid_covers_the_image():
    points = grid(30, 60, 3).points[:, 0]
    assert points[:, 0].unique().tolist() == [9.5, 29.5, 49.5]
    assert points[:, 1].unique().tolist() == [4.5, 14.5, 24.5]


def test_confidence():
    assert confidence(torch.tensor([0.5, 0.7]), torch.tensor([0.9, 0.9])) == pytest.approx(0.75)
    assert confidence(torch.zeros(0), torch.zeros(0)) == 0.0
    assert detector_confidence(torch.zeros(0)) == 0.0
    assert detector_confidence(torch.tensor([0.3, 0.5, 0.2])) == 0.5


def test_results_without_scores_are_refused():
    with pytest.raises(InputError, match="the segmenter gives sem_seg without scores; name anoth"):
        energy_of({"sem_seg": torch.zeros(3, 4, 4)}, prompted=False)
    with pytest.raises(InputError, match="gives instances without scores"):
        energy_of({"instances": Instances((4, 4))}, prompted=False)
    with pytest.raises(InputError, match="gives sem_seg without scores"):
        canonicalized(tiny_segmenter("semantic"), judge())([inputs_of("semantic")])


def test_an_image_in_which_nothing_is_found_turns_along():
    segmenter = tiny_segmenter("mask_rcnn")
    segmenter.roi_heads.box_predictor.test_score_thresh = 1.1
    model, image = canonicalized(segmenter, judge()), photo()
    upright = model([{"image": image}])[0]
    assert len(upright["instances"]) == 0
    for turn in C4.elements:
        pose = model([{"image": turn_maps(image, turn).contiguous()}])[0]["pose"]
        assert pose.turn == C4.elements[0].__class__((upright["pose"].turns + turn.quarters) % 4)


def test_poses_without_prompts_by_the_model():
    """What videos and measurements of poses ask for."""
    for kind in ("mask_rcnn", "sam"):
        model = canonicalized(tiny_segmenter(kind), judge())
        pose = bound_to_model(model).pose(photo())
        turned = bound_to_model(model).pose(turn_maps(photo(), 1))
        assert turned.turns == (pose.turns + 1) % 4
    plain = canonicalized(tiny_segmenter("sam"), random_canonicalizer())
    assert bound_to_model(plain) is plain.canonicalizer


def test_frames_of_symmetric_images_ask_about_the_prompts_that_decide():
    image = torch.full((3, 40, 40), 9, dtype=torch.uint8)
    model, prompts = canonicalized(tiny_segmenter("sam"), judge()), random_prompts(40, 40).snapped()
    upright = model([{"image": image, "prompts": prompts}])[0]["instances"]
    for turn in C4.elements:
        found = model([{"image": image, "prompts": prompts.turned(turn, 40, 40)}])[0]["instances"]
        assert torch.equal(found.pred_masks, turn_maps(upright.pred_masks, turn))
        frame = CanonicalFrame(sam_judge(model.segmenter.sam), image, prompts)
        assert frame.pose.is_symmetric
