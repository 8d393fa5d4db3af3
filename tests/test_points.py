"""Test the experiment on point clouds: groups, frames, networks, shapes and ModelNet's forms."""

import dataclasses
import json
import math
import os

import numpy as np
import pytest
import torch
from optional import need
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from canon_seg.cli import eval_points
from canon_seg.config.load import load_config
from canon_seg.core.group import Group
from canon_seg.errors import InputError, run_main
from canon_seg.points import report
from canon_seg.points.canonicalizer import (
    CanonicalizedPointClassifier,
    PrincipalAxesCanonicalizer,
    VectorNeuronCanonicalizer,
    cloud_prior_loss,
    prior_angles,
)
from canon_seg.points.clouds import make_cloud_set, what_is_wrong
from canon_seg.points.config import points_config
from canon_seg.points.frames import orthonormal_frames, principal_frames
from canon_seg.points.group import SO3, TRIVIAL, Z, about_z, rotate_points, rotation_angle
from canon_seg.points.modelnet import read_clouds, read_off, sample_mesh
from canon_seg.points.models import CLASSIFIERS, DGCNN, PointNet
from canon_seg.points.shapes import FAMILIES, box, draw_shape, make_shapes, tube
from canon_seg.points.training import Recipe, train_by_prior, train_classifier
from canon_seg.points.vector_neurons import VectorNetwork


def rotations(count, seed=0):
    return torch.from_numpy(Rotation.random(count, random_state=seed).as_matrix())


def clouds(count=3, points=64, seed=0):
    return torch.randn(count, points, 3, generator=torch.Generator().manual_seed(seed))


# Groups


@pytest.mark.parametrize("group", [SO3, Z, TRIVIAL])
def test_group_has_what_the_core_asks_of_a_group(group):
    assert isinstance(group, Group) and group.exact is TRIVIAL
    a, b = group.sample(2, torch.Generator().manual_seed(0))
    assert torch.equal(group.compose(a, group.identity), group.element(a))
    assert group.distance(group.compose(a, group.inverse(a)), group.identity) < 1e-4
    # b after a
    points = clouds(1)[0].double()
    one_by_one = rotate_points(rotate_points(points, a.double()), b.double())
    assert torch.allclose(rotate_points(points, group.compose(a, b)), one_by_one, atol=1e-6)


def test_distance_is_scipys_angle_and_bi_invariant():
    a, b, c = rotations(3)
    expected = math.degrees(Rotation.from_matrix((a.T @ b).numpy()).magnitude())
    assert SO3.distance(a, b) == pytest.approx(expected, abs=1e-6)
    assert SO3.distance(c @ a, c @ b) == pytest.approx(expected, abs=1e-6)
    assert SO3.distance(a @ c, b @ c) == pytest.approx(expected, abs=1e-6)


def test_small_angles_keep_their_digits():
    assert float(rotation_angle(about_z(1e-5))) == pytest.approx(1e-5, rel=1e-6)
    assert float(rotation_angle(about_z(180.0))) == pytest.approx(180)


def test_sampled_rotations_are_rotations_and_uniform():
    drawn = SO3.sample(4000, torch.Generator().manual_seed(0)).double()
    assert torch.allclose(drawn @ drawn.transpose(1, 2), torch.eye(3).double(), atol=1e-5)
    assert torch.allclose(torch.linalg.det(drawn), torch.ones(4000).double(), atol=1e-5)
    # Uniform rotations take an axis anywhere on the sphere, where heights are uniform.
    heights = drawn[:, 2, 0]
    assert abs(float(heights.mean())) < 0.03 and float(heights.var()) == pytest.approx(1 / 3, 0.05)
    upright = Z.sample(100, torch.Generator().manual_seed(0))
    assert torch.equal(upright[:, 2], torch.tensor([0.0, 0.0, 1.0]).expand(100, 3))


@pytest.mark.parametrize(
    ("group", "matrix", "message"),
    [
        (SO3, torch.eye(2), "3 x 3"),
        (SO3, torch.diag(torch.tensor([1.0, 1, -1])), "reflection"),
        (SO3, 2 * torch.eye(3), "not orthonormal"),
        (Z, torch.diag(torch.tensor([1.0, -1, -1])), "z axis"),
        (TRIVIAL, about_z(30.0), "identity"),
    ],
)
def test_what_is_no_element_is_refused(group, matrix, message):
    with pytest.raises(ValueError, match=message):
        group.element(matrix)


# Frames


def test_frames_are_right_handed_and_turn_along():
    vectors = clouds(20, 2).double()
    frames, sound = orthonormal_frames(vectors)
    assert sound.all()
    assert torch.allclose(frames.transpose(1, 2) @ frames, torch.eye(3).double(), atol=1e-12)
    assert torch.allclose(torch.linalg.det(frames), torch.ones(20).double())
    assert torch.allclose(frames[:, :, 2], F.normalize(vectors[:, 0], dim=1))
    turn = rotations(1)[0]
    assert torch.allclose(orthonormal_frames(vectors @ turn.T)[0], turn @ frames, atol=1e-12)


@pytest.mark.parametrize(
    "vectors",
    [
        [[0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [1, 0, 0]],
        [[0, 0, 1], [0, 0, 0]],
        [[1, 2, 3], [2, 4, 6]],
        [[0, 1, 0], [0, -1, 0]],
    ],
)
def test_vectors_without_a_frame_get_a_rotation_that_is_not_sound(vectors):
    given = torch.tensor([vectors], dtype=torch.float64, requires_grad=True)
    frames, sound = orthonormal_frames(given)
    assert not sound.any()
    assert torch.allclose(frames[0].T @ frames[0], torch.eye(3).double(), atol=1e-6)
    assert torch.linalg.det(frames[0]) > 0
    frames.sum().backward()
    assert torch.isfinite(given.grad).all()


def test_principal_axes_are_those_of_scipy_and_four():
    points = (clouds(1, 500).double() * torch.tensor([3.0, 2.0, 1.0]).double())[0]
    points = points - points.mean(dim=0)
    frames, sound = principal_frames(points[None])
    assert sound.all() and frames.shape == (1, 4, 3, 3)
    expected = np.linalg.svd(points.numpy(), full_matrices=False)[2].T
    for frame in frames[0]:
        assert torch.allclose(frame.abs(), torch.from_numpy(expected).abs(), atol=1e-9)
        assert torch.linalg.det(frame) > 0
    assert len({tuple(frame.sign().flatten().tolist()) for frame in frames[0]}) == 4


def test_principal_axes_of_a_ball_are_not_sound():
    corners = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    assert not principal_frames(corners[None].double())[1].any()


# Networks


def test_vectors_turn_along_with_the_cloud():
    torch.manual_seed(0)
    network = VectorNetwork(8, points=48).double().eval()
    points, turn = clouds(4).double(), rotations(1)[0]
    expected = network(points) @ turn.T
    assert torch.allclose(network(points @ turn.T), expected, atol=1e-9)


def test_canonical_forms_of_rotated_clouds_are_equal_and_come_back():
    torch.manual_seed(0)
    canonicalizer = VectorNeuronCanonicalizer(16, 64).eval()
    given, turn = clouds(4), rotations(1)[0].float()
    poses, turned = canonicalizer(given), canonicalizer(rotate_points(given, turn))
    assert poses.sound.all()
    angle = rotation_angle(
        (turn @ poses.rotations[:, 0]).double().transpose(1, 2) @ turned.rotations[:, 0].double()
    )
    assert float(torch.deg2rad(angle.detach()).max()) <= 1e-4
    assert torch.allclose(poses.act(turn).mode(), turned.mode(), atol=1e-4)
    canonical = poses.canonical(given)
    assert torch.allclose(canonical, turned.canonical(rotate_points(given, turn)), atol=1e-4)
    assert torch.allclose(poses.back(canonical)[:, 0], given, atol=1e-5)


def test_size_and_place_of_a_cloud_do_not_matter():
    canonicalizer = VectorNeuronCanonicalizer(8, 64).eval()
    given = clouds(2)
    moved = canonicalizer(given * 7 + torch.tensor([3.0, -2.0, 5.0]))
    assert torch.allclose(moved.rotations, canonicalizer(given).rotations, atol=1e-3)


def test_principal_axes_classify_rotated_clouds_alike():
    torch.manual_seed(0)
    model = (
        CanonicalizedPointClassifier(PrincipalAxesCanonicalizer(), CLASSIFIERS.get("PointNet")(5))
        .double()
        .eval()
    )
    given = clouds(3).double() * torch.tensor([3.0, 2.0, 1.0])
    expected = model(given)
    assert torch.allclose(model(rotate_points(given, rotations(1)[0])), expected, atol=1e-8)
    assert torch.allclose(expected.exp().sum(dim=1), torch.ones(3).double())


@pytest.mark.parametrize("name", ["PointNet", "DGCNN"])
def test_classifiers_do_not_mind_the_order_of_points(name):
    torch.manual_seed(0)
    model = CLASSIFIERS.get(name)(5).eval()
    given = clouds(2)
    assert torch.allclose(model(given), model(given[:, torch.randperm(64)]), atol=1e-5)


def test_edge_convolutions_are_those_of_the_paper():
    """Each edge by itself: a linear layer of the offset and the centre, side by side."""
    torch.manual_seed(0)
    model, given = DGCNN(5, widths=(4,), neighbours=3).double().eval(), clouds(1, 20).double()
    edge = model.edges[0]
    weights = torch.cat([edge.offset.weight, edge.centre.weight], dim=1)
    expected = []
    for point in given[0]:
        around = given[0][(given[0] - point).norm(dim=1).argsort()[:3]]
        pairs = torch.cat([around - point, point.expand(3, 3)], dim=1)
        expected.append(F.leaky_relu(edge.norm(pairs @ weights.T), 0.2).amax(dim=0))
    joined = model.join(torch.stack(expected)).amax(dim=0, keepdim=True)
    assert torch.allclose(model(given), model.head(joined), atol=1e-9)


@pytest.mark.parametrize("points", [torch.zeros(1, 64, 3), torch.rand(1, 64, 1) * torch.ones(3)])
def test_degenerate_clouds_get_a_rotation_and_are_marked(points):
    for canonicalizer in (VectorNeuronCanonicalizer(8, 64).eval(), PrincipalAxesCanonicalizer()):
        poses = canonicalizer(points)
        assert torch.isfinite(poses.rotations).all() and not poses.sound.any()
        assert torch.allclose(torch.linalg.det(poses.rotations), torch.ones(()), atol=1e-4)


# Prior


def test_prior_losses_are_cosines_of_angles():
    turns = rotations(5)
    angles = torch.from_numpy(Rotation.from_matrix(turns.numpy()).magnitude())
    assert cloud_prior_loss(turns, TRIVIAL) == pytest.approx(float((1 - angles.cos()).mean()))
    up = turns @ torch.tensor([0.0, 0.0, 1.0]).double()
    assert cloud_prior_loss(turns, Z) == pytest.approx(float((1 - up[:, 2]).mean()))
    assert torch.allclose(prior_angles(turns, TRIVIAL), torch.rad2deg(angles))
    assert torch.allclose(prior_angles(turns, Z), torch.rad2deg(torch.acos(up[:, 2])))
    assert float(cloud_prior_loss(about_z(torch.tensor([10.0, 200.0])), Z)) == 0
    for function in (cloud_prior_loss, prior_angles):
        with pytest.raises(ValueError, match="no prior"):
            function(turns, SO3)


def test_the_prior_teaches_what_is_up():
    torch.manual_seed(0)
    shapes = make_shapes(24, 48, seed=0)
    canonicalizer = VectorNeuronCanonicalizer(4, 48, hidden=16)
    train_by_prior(
        canonicalizer,
        shapes,
        Z,
        Recipe(
            epochs=40,
            points=48,
            batch_size=24,
            learning_rate=0.01,
            weight_decay=0.0,
            seed=0,
            title="test",
        ),
    )
    with torch.no_grad():
        angles = prior_angles(canonicalizer(shapes.points).rotations[:, 0], Z)
    # Any direction would be 90 degrees off in the median.
    assert not canonicalizer.training and float(angles.median()) < 70


def test_a_classifier_learns_upright_shapes():
    torch.manual_seed(0)
    shapes = make_shapes(48, 64, seed=0)
    model = CanonicalizedPointClassifier(
        PrincipalAxesCanonicalizer(), PointNet(len(shapes.classes), widths=(32, 64), hidden=32)
    )
    train_classifier(
        model,
        shapes,
        SO3,
        Recipe(
            epochs=40,
            points=64,
            batch_size=48,
            learning_rate=0.02,
            weight_decay=0.01,
            seed=0,
            title="test",
        ),
    )
    with torch.no_grad():
        right = model(shapes.points).argmax(dim=1) == shapes.labels
    assert float(right.double().mean()) > 0.4  # chance is 1 in 12


# Shapes


def test_shapes_are_the_same_for_the_same_seed_and_normalised():
    first, again, other = (make_shapes(24, 100, seed) for seed in (1, 1, 2))
    assert torch.equal(first.points, again.points) and not torch.equal(first.points, other.points)
    assert first.points.shape == (24, 100, 3) and len(set(first.labels.tolist())) == 12
    assert torch.allclose(first.points.mean(dim=1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(first.points.norm(dim=2).amax(dim=1), torch.ones(24))


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_stand_on_the_ground(family):
    drawn = draw_shape(family, 2000, np.random.default_rng(0))
    assert np.isfinite(drawn).all() and drawn.shape == (2000, 3)
    assert len(FAMILIES) >= 10


def test_points_lie_on_surfaces_by_area():
    rng = np.random.default_rng(0)
    area, draw = box((0, 1), (0, 2), (0, 3))
    points = draw(20000, rng)
    assert area == 22
    on = [(np.isclose(points[:, axis], end)).mean() for axis, end in ((0, 0), (1, 2), (2, 3))]
    assert on == pytest.approx([6 / 22, 3 / 22, 2 / 22], abs=0.01)
    area, draw = tube((1, 0), (0, 2), (1, 0), (True, False))
    points = draw(20000, rng)
    assert area == pytest.approx(math.pi * (math.sqrt(5) + 1))  # a cone's wall and foot
    radius = np.hypot(points[:, 0] - 1, points[:, 1])
    assert ((points[:, 2] < 1e-9) | np.isclose(radius, 1 - points[:, 2] / 2)).all()


# Files


def write_off(path, header="OFF\n8 6 0\n"):
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 2)]
    faces = ["4 0 1 3 2", "4 4 6 7 5", "4 0 4 5 1", "4 2 3 7 6", "4 0 2 6 4", "4 1 5 7 3"]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [" ".join(map(str, corner)) for corner in corners] + faces
    path.write_text(header + "\n".join(lines) + "\n")


@pytest.mark.parametrize("header", ["OFF\n8 6 0\n", "OFF8 6 0\n", "OFF\n# a comment\n8 6 0\n"])
def test_off_files_are_read(tmp_path, header):
    write_off(tmp_path / "a.off", header)
    vertices, triangles = read_off(tmp_path / "a.off")
    assert vertices.shape == (8, 3) and triangles.shape == (12, 3)
    points = sample_mesh(vertices, triangles, 4000, np.random.default_rng(0), "a")
    on_a_side = np.isclose(points, 0) | np.isclose(points, [1, 1, 2])
    assert on_a_side.any(axis=1).all() and points[:, 2].max() > 1.9
    assert np.isclose(points[:, 2], 2).mean() == pytest.approx(1 / 10, abs=0.02)


def test_folders_of_meshes_are_read(tmp_path):
    for kind in ("chair", "bed"):
        write_off(tmp_path / kind / "train" / f"{kind}_1.off")
    read = read_clouds(tmp_path, "train", 64)
    assert read.classes == ("bed", "chair") and read.labels.tolist() == [0, 1]
    extent = read.points.amax(dim=1) - read.points.amin(dim=1)
    assert (extent.argmax(dim=1) == 2).all()  # z up, as in the file
    assert torch.equal(read.points, read_clouds(tmp_path, "train", 64).points)
    # A class that one part lacks does not move the numbers of the others.
    write_off(tmp_path / "chair" / "test" / "chair_2.off")
    write_off(tmp_path / "sofa" / "test" / "sofa_1.off")
    tested, trained = (read_clouds(tmp_path, part, 64) for part in ("test", "train"))
    assert tested.classes == trained.classes == ("bed", "chair", "sofa")
    assert tested.labels.tolist() == [1, 2] and trained.labels.tolist() == [0, 1]


def write_text_form(folder, rows=40, columns=6):
    (folder / "chair").mkdir(parents=True)
    (folder / "modelnet40_shape_names.txt").write_text("bed\nchair\n")
    (folder / "modelnet40_test.txt").write_text("chair_0001\n")
    values = np.random.default_rng(0).random((rows, columns))
    values[:, 1] *= 5  # tall along y, which is up in this form
    np.savetxt(folder / "chair" / "chair_0001.txt", values, delimiter=",", fmt="%.6f")


def test_text_form_is_read_with_z_up(tmp_path):
    write_text_form(tmp_path)
    read = read_clouds(tmp_path, "test", 32)
    assert read.points.shape == (1, 32, 3) and read.labels.tolist() == [1]
    assert np.ptp(read.points[0].numpy(), axis=0).argmax() == 2
    as_given = read_clouds(tmp_path, "test", 32, up="z")
    assert np.ptp(as_given.points[0].numpy(), axis=0).argmax() == 1
    # Exchanging the axes is a rotation: handedness stays.
    corner = as_given.points[0, :3]
    moved = read.points[0, :3]
    assert torch.allclose(torch.linalg.det(corner), torch.linalg.det(moved), atol=1e-6)


def test_hdf5_form_is_read(tmp_path):
    h5py = need("h5py")
    data = np.random.default_rng(0).random((3, 50, 3)).astype(np.float32)
    with h5py.File(tmp_path / "ply_data_train0.h5", "w") as file:
        file["data"], file["label"] = data, np.array([[0], [1], [1]], np.uint8)
    (tmp_path / "train_files.txt").write_text("data/elsewhere/ply_data_train0.h5\n")
    (tmp_path / "shape_names.txt").write_text("bed\nchair\n")
    read = read_clouds(tmp_path, "train", 40)
    assert read.points.shape == (3, 40, 3) and read.labels.tolist() == [0, 1, 1]
    with pytest.raises(InputError, match="50 points, fewer than the 60"):
        read_clouds(tmp_path, "train", 60)
    whole = (tmp_path / "ply_data_train0.h5").read_bytes()
    (tmp_path / "ply_data_train0.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="ply_data_train0.h5 cannot be read"):
        read_clouds(tmp_path, "train", 40)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PLY\n", "no OFF file"),
        ("OFF\n8 6 0\n0 0 0\n", "damaged"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "a face is cut short"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "a vertex that is not there"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "no area"),
    ],
)
def test_damaged_meshes_are_named(tmp_path, text, message):
    path = tmp_path / "chair" / "test" / "chair_1.off"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_clouds(tmp_path, "test", 32)
    assert "chair_1.off" in str(raised.value)


def test_text_files_cut_short_are_named(tmp_path):
    write_text_form(tmp_path, rows=20)
    with pytest.raises(InputError, match="20 points, fewer than the 32"):
        read_clouds(tmp_path, "test", 32)


def test_folders_of_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="no point clouds that can be read"):
        read_clouds(tmp_path, "train", 32)
    with pytest.raises(InputError, match=r"DATA\.UP is 'x'"):
        read_clouds(tmp_path, "train", 32, up="x")


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        (np.zeros((20, 2)), "N x 3"),
        (np.zeros((3, 3)), "too few"),
        (np.full((20, 3), np.nan), "20 of 20 points"),
        (np.ones((20, 3)), "all points are equal"),
        (np.outer(np.arange(20), [0.1, 0.2, 0.3]), "all points lie on a line"),
    ],
)
def test_what_is_no_cloud_is_described(cloud, message):
    assert message in what_is_wrong(cloud)
    with pytest.raises(InputError, match="scan 7: "):
        make_cloud_set([cloud], [0], ["a"], "set", ["scan 7"])


def test_points_in_a_plane_are_a_cloud():
    assert what_is_wrong(np.random.default_rng(0).random((20, 3)) * [1, 1, 0]) is None


def test_models_refuse_what_is_no_batch_of_clouds():
    model = CanonicalizedPointClassifier(PrincipalAxesCanonicalizer(), PointNet(5)).eval()
    with pytest.raises(ValueError, match=r"B x N x 3, got the shape \(64, 3\)"):
        model(clouds(1)[0])
    spoilt = clouds(3)
    spoilt[1, 5, 0] = math.nan
    with pytest.raises(ValueError, match=r"clouds \[1\] are NaN"):
        model(spoilt)


def test_labels_out_of_range_are_refused():
    with pytest.raises(InputError, match="label 3 is out of range"):
        make_cloud_set([np.random.default_rng(0).random((20, 3))], [3], ["a"], "set", ["scan 7"])


# The command


@pytest.mark.parametrize("name", ["so3", "modelnet40"])
def test_configs_of_the_project_load(name):
    defaults = points_config()
    cfg = load_config(f"configs/points/{name}.yaml", [], points_config())
    assert cfg.DATA.POINTS == 1024 and set(cfg.MODEL) == set(defaults.MODEL)
    # The embedded weights are those of the defaults.
    assert (cfg.MODEL == defaults.MODEL) == (name == "so3")


SMALL = [
    *("DATA.TRAIN_SHAPES", "12", "DATA.TEST_SHAPES", "12", "DATA.POINTS", "64"),
    *("MODEL.POINTNET.POINTS", "64", "MODEL.DGCNN.POINTS", "32"),
    *("MODEL.CANONICALIZER.POINTS", "32", "MODEL.CANONICALIZER.CHANNELS", "4"),
    *("SOLVER.IMS_PER_BATCH", "12"),
    *("SOLVER.POINTS", "48", "SOLVER.EPOCHS", "1", "SOLVER.CANONICALIZER_EPOCHS", "1"),
]


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the command with arguments: its exit status and stderr."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["eval_points.py", *map(str, arguments)])
        try:
            run_main(eval_points.main)
        except SystemExit as stop:
            return stop.code or 0, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call


def test_command_trains_evaluates_and_reads_its_weights_again(run, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "SHOWN", 1)
    first, again = tmp_path / "first", tmp_path / "again"
    status, errors = run("--output", first, "--train", *SMALL)
    assert status == 0, errors
    result = json.loads((first / "points.json").read_text())
    assert result["num_clouds"] == 12 and set(result["classifiers"]) == {"PointNet", "DGCNN"}
    rows = result["classifiers"]["PointNet"]
    assert set(rows) == {
        "vanilla",
        "rotation augmentation",
        "learned",
        "prior",
        "prior, frozen classifier",
        "principal axes",
    }
    assert rows["prior"]["SO3/SO3"] is None and 0 <= rows["vanilla"]["z/SO3"] <= 100
    assert rows["vanilla"]["SO3/SO3"] == rows["rotation augmentation"]["SO3/SO3"]
    assert (first / "points.png").stat().st_size > 10000
    assert "| PointNet, prior | " in (first / "points.md").read_text()

    def with_odd_names(*arguments):
        clouds = make_shapes(*arguments)
        names = [f"${name}_{{$" + os.fsdecode(b"\xff") for name in clouds.classes]
        return dataclasses.replace(clouds, classes=tuple(names))

    monkeypatch.setattr(eval_points, "make_shapes", with_odd_names)
    status, errors = run("--output", again, "--weights", first / "points.pth", *SMALL)
    assert status == 0, errors
    assert (again / "points.png").stat().st_size > 10000  # whatever the names of the classes
    assert json.loads((again / "points.json").read_text())["classifiers"] == result["classifiers"]
    # A training that was interrupted goes on after its last part, and keeps the parts before it.
    contents = torch.load(first / "points.pth", weights_only=True)
    lost, kept = contents["parts"].pop("DGCNN/vanilla/z"), contents["parts"]["PointNet/vanilla/z"]
    torch.save(contents, first / "points.pth")
    assert "--resume" in run("--output", again, "--weights", first / "points.pth", *SMALL)[1]
    kept["head.0.weight"].fill_(0)
    torch.save(contents, first / "points.pth")
    assert run("--output", first, "--train", "--resume", *SMALL)[0] == 0
    parts = torch.load(first / "points.pth", weights_only=True)["parts"]
    assert all(torch.equal(value, lost[name]) for name, value in parts["DGCNN/vanilla/z"].items())
    assert not parts["PointNet/vanilla/z"]["head.0.weight"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "."], "add --train"),
        (["--train", "--weights", "a.pth"], "give one of the two"),
        (["--resume"], "give --train as well"),
        (["--weights", "a.pth", "DATA.POINTS", "100"], "fewer than the 1024"),
        (["--train", "--data", "."], "no point clouds that can be read"),
        (["--weights", "a.pth"], "a.pth"),
    ],
)
def test_command_refuses_what_it_cannot_do(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, errors = run("--output", tmp_path / "out", *arguments)
    assert status not in (0, None) and message in errors and "Traceback" not in errors
