import inspect
import re
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("detectron2", reason="configs are detectron2's")

from canon_seg.config.keys import add_canon_seg_config
from canon_seg.d2.config import load_config
from canon_seg.errors import InputError

from detectron2 import model_zoo
from detectron2.config import get_cfg

# Those of point clouds have other keys; tests/test_points.py loads them.
CONFIGS = sorted(
    path
    for path in (Path(__file__).parent.parent / "configs").rglob("*.yaml")
    if path.parent.name != "points"
)


def write(path, text):
    path.write_text(text)
    return str(path)


def flat(node, prefix=""):
    keys = {}
    for key, value in node.items():
        is_node = hasattr(value, "items")
        keys.update(flat(value, f"{prefix}{key}.") if is_node else {prefix + key: value})
    return keys


def our_keys():
    cfg = get_cfg()
    before = set(flat(cfg))
    add_canon_seg_config(cfg)
    return {key: value for key, value in flat(cfg).items() if key not in before}


def test_every_key_has_a_comment_above_it():
    lines = inspect.getsource(add_canon_seg_config).splitlines()
    commented = set()
    for above, line in pairwise(lines):
        key = re.match(r"\s+cfg\.([A-Z0-9_.]+) = (?!CN\(\))", line)
        if key:
            assert above.strip().startswith("# "), f"{key[1]} has no comment"
            commented.add(key[1])
    assert commented == set(our_keys())
    assert len(commented) > 20


def test_detectron2s_own_defaults_stay():
    theirs, cfg = flat(get_cfg()), get_cfg()
    add_canon_seg_config(cfg)
    assert {key: value for key, value in flat(cfg).items() if key in theirs} == theirs


def test_defaults():
    cfg = load_config("")
    assert cfg.MODEL.CANONICALIZER.PRIOR == [1.0, 0.0, 0.0, 0.0]
    assert not cfg.is_frozen()
    assert set(flat(cfg)) == set(flat(get_cfg())) | set(our_keys())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_of_the_project_load(path):
    cfg = load_config(str(path), ["OUTPUT_DIR", "elsewhere"])
    assert cfg.OUTPUT_DIR == "elsewhere"
    assert set(flat(cfg)) == set(flat(load_config("")))


def test_there_are_configs():
    names = {path.name for path in CONFIGS}
    assert {"sam_c4.yaml", "sam_tiny_c4.yaml", "mask_rcnn_c4.yaml"} <= names


def test_identity_and_group_differ_by_one_key():
    path = str(CONFIGS[0].parent / "sam_c4.yaml")
    cfg = load_config(path, ["MODEL.CANONICALIZER.NAME", "IdentityCanonicalizer"])
    changed = {k for k, v in flat(load_config(path)).items() if flat(cfg)[k] != v}
    assert changed == {"MODEL.CANONICALIZER.NAME"}


def test_file_and_options(tmp_path):
    base = write(tmp_path / "base.yaml", "SEED: 3\nMODEL:\n  SAM:\n    SIZE: vit_b\n")
    file = write(tmp_path / "c.yaml", f"_BASE_: {base}\nSEED: 4\n")
    cfg = load_config(file, ["MODEL.SAM.PROMPTS_PER_BATCH", "8", "DATASETS.PHOTOS", "('a', 'b')"])
    assert (cfg.SEED, cfg.MODEL.SAM.SIZE, cfg.MODEL.SAM.PROMPTS_PER_BATCH) == (4, "vit_b", 8)
    assert list(cfg.DATASETS.PHOTOS) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("MODEL:\n  CANONICALISER:\n    NAME: x\n", "unknown config key: MODEL.CANONICALISER"),
        ("MODEL:\n  SAM:\n    SIZES: x\n", "unknown config key: MODEL.SAM.SIZES"),
        ("SEED: many\n", "SEED"),
        ("MODEL:\n  CANONICALIZER: 3\n", "MODEL.CANONICALIZER"),
        ("MODEL: [1\n", "line"),
        ("MODEL:\n\tSAM: 1\n", "line"),
        ("", "no keys"),
        ("- 1\n- 2\n", "no keys"),
        ("text", "no keys"),
        ("_BASE_: nowhere.yaml\n", "nowhere.yaml"),
        ("_BASE_: 3\n", ""),
        ("VERSION: 9\n", "9"),
        ("\x00\x01", ""),
    ],
)
def test_bad_files_are_named(tmp_path, text, named):
    file = write(tmp_path / "bad.yaml", text)
    with pytest.raises(InputError) as caught:
        load_config(file)
    assert file in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x80\x81")
    with pytest.raises(InputError, match="bad.yaml"):
        load_config(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize("path", ["nowhere.yaml", "."])
def test_missing_file(path):
    with pytest.raises(InputError, match=f"--config-file: there is no file {path}"):
        load_config(path)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["MODEL.CANONICALIZER.NAMES", "x"], "MODEL.CANONICALIZER.NAMES"),
        (["NOTHING", "x"], "NOTHING"),
        (["SEED", "many"], "SEED"),
        (["SEED"], "pairs KEY VALUE"),
        (["SEED", "1", "OUTPUT_DIR"], "pairs KEY VALUE"),
        (["SEED=1"], "pairs KEY VALUE"),
        (["_BASE_", "x.yaml"], "_BASE_"),
        (["MODEL.SAM.SIZE.X", "1"], "MODEL.SAM.SIZE.X"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(InputError) as caught:
        load_config("", options)
    assert named in str(caught.value)


@pytest.mark.parametrize("as_base", [False, True])
def test_yaml_runs_no_code(tmp_path, as_base):
    marker = tmp_path / "marker"
    file = write(
        tmp_path / "bad.yaml",
        f'SEED: !!python/object/apply:os.system ["touch {marker}"]\n',
    )
    if as_base:
        file = write(tmp_path / "c.yaml", f"_BASE_: {file}\nOUTPUT_DIR: x\n")
    with pytest.raises(InputError, match="python/object/apply"):
        load_config(file)
    assert not marker.exists()
    get_cfg().merge_from_file(file)  # what detectron2 alone would do
    assert marker.exists()


def test_files_of_the_model_zoo_can_be_bases(tmp_path):
    # RetinaNet's computes its anchors with a tag that runs code.
    zoo = model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    file = write(tmp_path / "c.yaml", f"_BASE_: {zoo}\nMODEL:\n  SAM:\n    SIZE: tiny\n")
    cfg = load_config(file)
    assert cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES[0][1] == pytest.approx(32 * 2 ** (1 / 3))


@pytest.mark.parametrize(
    ("value", "expected"), [("10", 10.0), (10, 10.0), ("0.5", 0.5), ("1e-1", 0.1)]
)
def test_whole_numbers_are_taken_for_floats(value, expected):
    weight = load_config("", ["MODEL.CANONICALIZER.PRIOR_WEIGHT", value]).MODEL.CANONICALIZER
    assert expected == weight.PRIOR_WEIGHT and isinstance(weight.PRIOR_WEIGHT, float)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.CANONICALIZER.PRIOR_WEIGHT", "heavy"),
        ("MODEL.CANONICALIZER.CACHE", "0.5"),
        ("MODEL.CANONICALIZER.PRIOR_WEIGHT.MORE", "1"),
    ],
)
def test_values_of_other_kinds_are_refused(key, value):
    with pytest.raises(InputError, match=key):
        load_config("", [key, value])
