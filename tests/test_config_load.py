"""Configs on fvcore alone; what both ways of loading share is tested in test_d2_config.py too."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from canon_seg.config.detectron2_keys import DEFAULTS, OPEN_NODES, detectron2_keys
from canon_seg.config.keys import add_canon_seg_config
from canon_seg.config.load import default_config, given_keys, load_config
from canon_seg.errors import InputError

# Those of point clouds have other keys; tests/test_points.py loads them.
CONFIGS = sorted(
    path
    for path in (Path(__file__).parent.parent / "configs").rglob("*.yaml")
    if path.parent.name != "points"
)


def flat(node, prefix=""):
    keys = {}
    for key, value in node.items():
        is_node = hasattr(value, "items")
        keys.update(flat(value, f"{prefix}{key}.") if is_node else {prefix + key: value})
    return keys


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_of_the_project_say_the_same_with_and_without_detectron2(path):
    pytest.importorskip("detectron2")
    from canon_seg.d2 import config

    options = ["MODEL.SAM.SIZE", "tiny", "SEED", "3", "MODEL.CANONICALIZER.PRIOR_WEIGHT", "2"]
    ours, theirs = load_config(str(path), options), config.load_config(str(path), options)
    names = set(flat(theirs))
    of_detectron2 = set(flat(detectron2_keys())) - set(DEFAULTS)
    compared = 0
    for name, value in flat(ours).items():
        if name.startswith(OPEN_NODES) or name in of_detectron2:
            continue
        assert name in names and flat(theirs)[name] == value, name
        compared += 1
    assert compared > 50


def test_all_of_detectron2s_keys_are_known_and_no_others():
    pytest.importorskip("detectron2")
    from detectron2.config import get_cfg

    theirs, known = flat(get_cfg()), flat(detectron2_keys())
    assert not [n for n in theirs if n not in known and not n.startswith(OPEN_NODES)]
    assert {name: theirs[name] for name in DEFAULTS} == DEFAULTS
    default_config().merge_from_other_cfg(_as_fvcore(get_cfg()))


def _as_fvcore(cfg):
    def plain(node):
        return {k: plain(v) if hasattr(v, "items") else v for k, v in node.items()}

    return type(default_config())(plain(cfg))


def test_new_nodes_have_the_class_of_the_config():
    cfg = detectron2_keys()
    add_canon_seg_config(cfg)
    assert type(cfg.MODEL.SAM) is type(cfg)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "MODEL:\n  CANONICALISER:\n    NAME: x\n",
            "unknown config key: MODEL.CANONICALISER; did you mean MODEL.CANONICALIZER?",
        ),
        (
            "MODEL:\n  SAM:\n    SIZES: x\n",
            "unknown config key: MODEL.SAM.SIZES; did you mean MODEL.SAM.SIZE?",
        ),
        ("INPUT:\n  CROP_MIN_SCALES: 1\n", "unknown config key: INPUT.CROP_MIN_SCALES"),
        ("NOTHING: 1\n", "unknown config key: NOTHING"),
        ("SEED: many\n", "SEED"),
        ("MODEL:\n  CANONICALIZER: 3\n", "MODEL.CANONICALIZER"),
        ("DATASETS:\n  FOLDER_POWER:\n", "DATASETS.FOLDER_POWER has no value; give one"),
        ("DATASETS:\n  PHOTOS: null\n", "DATASETS.PHOTOS has no value"),
        ("SEED:\nINPUT:\n  EXIF: ~\n", "INPUT.EXIF has no value"),
        ("MODEL: [1\n", "line"),
        ("", "no keys"),
        ("_BASE_: nowhere.yaml\n", "nowhere.yaml"),
        ("VERSION: 9\n", "VERSION is 9"),
        ("VERSION: 1\n", "VERSION is 1"),
        ("SEED: !!python/object/apply:os.getcwd []\n", "python/object/apply"),
    ],
)
def test_bad_files_are_named(tmp_path, text, named):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(str(file))
    assert str(file) in str(caught.value) and named in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ["MODEL.CANONICALISER.WEIGHTS", "x"],
            "unknown config key: MODEL.CANONICALISER.WEIGHTS; did you mean "
            "MODEL.CANONICALIZER.WEIGHTS?",
        ),
        (["MODEL.CANONICALIZER.NAMES", "x"], "did you mean MODEL.CANONICALIZER.NAME?"),
        (["NOTHING", "x"], "NOTHING"),
        (["SEED", "many"], "SEED"),
        (["SEED"], "pairs KEY VALUE"),
        (["SEED", "None"], "options SEED None: SEED has no value; give one"),
        (["DATASETS.PHOTOS", None], "DATASETS.PHOTOS has no value"),
        (["MODEL.SAM.SIZE.X", "1"], "MODEL.SAM.SIZE.X"),
        (["MODEL.RPNS.X", "1"], "MODEL.RPNS.X"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(InputError) as caught:
        load_config("", options)
    assert named in str(caught.value)


def test_options_of_detectron2_are_taken(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("TEST:\n  AUG:\n    FLIP: False\nMODEL:\n  DEVICE: cpu\n")
    options = ["TEST.AUG.ENABLED", "True", "DATALOADER.NUM_WORKERS", "2", "MODEL.MASK_ON", "True"]
    cfg = load_config(str(file), options)
    assert cfg.TEST.AUG == {"FLIP": False, "ENABLED": True}
    assert (cfg.DATALOADER.NUM_WORKERS, cfg.MODEL.MASK_ON) == (2, True)
    assert given_keys(str(file))["MODEL"] == {"DEVICE": "cpu"} and given_keys("") == {}


def test_detectron2_is_not_imported():
    code = (
        "import sys; from canon_seg.config import device, load;"
        "cfg = load.load_config('sam_tiny_c4.yaml'); device.resolve_device(cfg, '');"
        "assert cfg.MODEL.SAM.SIZE == 'tiny' and 'detectron2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("defaults", ["ours", "detectron2"])
def test_whole_numbers_are_floats_in_files_as_in_options(tmp_path, defaults):
    (tmp_path / "base.yaml").write_text("SOLVER:\n  EMA_DECAY: 0\n")
    (tmp_path / "a.yaml").write_text(
        "_BASE_: base.yaml\nSOLVER:\n  BASE_LR: 1\nMODEL:\n  CANONICALIZER:\n    PRIOR_WEIGHT: 3\n"
    )
    load = load_config
    if defaults == "detectron2":
        load = pytest.importorskip("canon_seg.d2.config").load_config
    cfg = load(str(tmp_path / "a.yaml"))
    assert cfg.SOLVER.BASE_LR == 1 and type(cfg.MODEL.CANONICALIZER.PRIOR_WEIGHT) is float
    assert cfg.MODEL.CANONICALIZER.PRIOR_WEIGHT == 3 and cfg.SOLVER.EMA_DECAY == 0
    assert type(cfg.SOLVER.EMA_DECAY) is float
    if defaults == "detectron2":
        assert type(cfg.SOLVER.BASE_LR) is float
    options = ["SOLVER.BASE_LR", 2, "MODEL.CANONICALIZER.UNCERTAIN_BELOW", 0.6]
    cfg = load(str(tmp_path / "a.yaml"), options)  # numbers, as Python gives them
    assert cfg.SOLVER.BASE_LR == 2 and cfg.MODEL.CANONICALIZER.UNCERTAIN_BELOW == 0.6
    cfg = load(str(tmp_path / "a.yaml"), ["MODEL.CANONICALIZER.MIN_TILT", float("inf")])
    assert cfg.MODEL.CANONICALIZER.MIN_TILT == float("inf")  # for the canonicalizer to refuse
    (tmp_path / "b.yaml").write_text("MODEL:\n  CANONICALIZER:\n    PRIOR_WEIGHT: true\n")
    with pytest.raises(InputError, match="b.yaml"):
        load(str(tmp_path / "b.yaml"))


@pytest.mark.parametrize("loader", ["fvcore", "detectron2"])
@pytest.mark.parametrize(
    "base", ["sam_tiny_c4.yaml", "configs/sam_tiny_c4.yaml", "train/sam_tiny.yaml"]
)
def test_a_base_may_be_a_config_of_the_package(tmp_path, loader, base):
    load = load_config
    if loader == "detectron2":
        load = pytest.importorskip("canon_seg.d2.config").load_config
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE_: {base}\nMODEL:\n  SAM:\n    PROMPTS_PER_BATCH: 3\n")
    cfg, packaged = load(str(path)), load(base)
    assert cfg.MODEL.SAM.PROMPTS_PER_BATCH == 3 and cfg.MODEL.SAM.SIZE == "tiny"
    packaged.MODEL.SAM.PROMPTS_PER_BATCH = 3
    assert cfg == packaged


def test_a_base_beside_the_file_wins(tmp_path):
    (tmp_path / "sam_tiny_c4.yaml").write_text("SEED: 77\nVERSION: 2\n")
    (tmp_path / "mine.yaml").write_text("_BASE_: sam_tiny_c4.yaml\n")
    assert load_config(str(tmp_path / "mine.yaml")).SEED == 77


def test_a_base_that_is_nowhere_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("_BASE_: nothing.yaml\n")
    with pytest.raises(InputError, match=r"mine.yaml: _BASE_: .*nothing.yaml.*sam_tiny_c4.yaml"):
        load_config(str(path))


@pytest.mark.parametrize(("base", "other"), [("mine.yaml", None), ("./b.yaml", "mine.yaml")])
def test_a_base_of_itself_is_named(tmp_path, base, other):
    (tmp_path / "mine.yaml").write_text(f"_BASE_: {base}\n")
    if other:
        (tmp_path / "b.yaml").write_text(f"_BASE_: {other}\n")
    with pytest.raises(
        InputError, match=r"^\S*mine.yaml: _BASE_: \S*mine.yaml is a base of itself"
    ):
        load_config(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("key", "value", "proper"),
    [
        ("DATASETS.PHOTOS", "my_photos", "['my_photos']"),
        ("MODEL.SAM.TINY.BLOCKS", "3", "[3]"),
    ],
)
def test_one_thing_for_a_list_is_answered_with_the_list(key, value, proper):
    with pytest.raises(InputError, match=re.escape(f'give {key} "{proper}"')):
        load_config("", [key, value])
    load_config("", [key, proper])
