import json
import sys

import numpy as np
import pytest
import torch
from optional import need
from safetensors import safe_open
from tiny_models import random_image

import canon_seg
from canon_seg.errors import InputError
from canon_seg.predictors.defaults import load_default_canonicalizer

FILES = "canonicalizer_gcnn.pth", "canonicalizer_pretrained.pth"
IMAGE = random_image(60, 90)


@pytest.fixture
def hub():
    need("huggingface_hub")
    need("jinja2")
    return canon_seg.HubCanonicalizer


@pytest.mark.parametrize("name", FILES)
def test_a_folder_gives_the_same_model_back(hub, tmp_path, name):
    before = hub.from_file(f"canon_seg://{name}")
    before.save_pretrained(tmp_path / "model")
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    after = hub.from_pretrained(tmp_path / "model")
    assert not after.training and after.pose(IMAGE) == before.pose(IMAGE)
    for key, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[key], value), key
    # What is stored are the weights, by name, and nothing else.
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as stored:
        assert set(stored.keys()) == set(before.state_dict())


@pytest.mark.parametrize("name", FILES)
def test_it_says_what_the_model_of_the_package_says(hub, name):
    file = f"canon_seg://{name}"
    pose = load_default_canonicalizer(weights=file).pose(IMAGE)
    assert hub.from_file(file).pose(IMAGE) == pose and pose.probability < 1
    scorer = load_default_canonicalizer().scorer
    assert scorer.temperature != 1  # else the temperature could be lost


def test_it_is_a_canonicalizer_as_any_other(hub, tmp_path):
    hub.from_file(f"canon_seg://{FILES[0]}").save_pretrained(tmp_path)
    canonicalizer = hub.from_pretrained(tmp_path)
    poses = [canonicalizer.pose(torch.rot90(IMAGE, turns, (1, 2))).turns for turns in range(4)]
    assert [(pose - poses[0]) % 4 for pose in poses] == [0, 1, 2, 3]
    predictor = canon_seg.CanonicalSamPredictor(canon_seg.load_default_sam(), canonicalizer)
    predictor.set_image(np.ascontiguousarray(IMAGE.permute(1, 2, 0).numpy()))
    assert predictor.pose.turns == poses[0]


def test_config_and_model_card_are_filled(hub, tmp_path):
    model = hub.from_file(f"canon_seg://{FILES[1]}")
    card = {
        "training": "Trained on my photographs.",
        "figures": "81 % of them.",
        "repo_id": "me/up",
    }
    model.save_pretrained(tmp_path, model_card_kwargs=card)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["network"]["kind"] == "backbone" and config["input_size"] > 32
    assert set(config["temperatures"]) == {"0", "1"}
    text = (tmp_path / "README.md").read_text()
    for part in ("license: apache-2.0", "library_name: canon_seg", 'from_pretrained("me/up")'):
        assert part in text
    for part in (*card.values(), config["network"]["backbone"], f"{config['input_size']} px", "C4"):
        assert part in text
    assert "{{" not in text and "Not stated" not in text


def test_what_does_not_fit_is_refused(hub, tmp_path):
    hub.from_file(f"canon_seg://{FILES[0]}").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for change, message in [
        ({"network": {**config["network"], "depth": 7}}, "do not fit config.json"),
        ({"network": {"kind": "tree"}}, "kind is 'tree'"),
        ({"network": {"kind": "equivariant"}}, "incomplete or wrong"),
        ({"network": None}, "describes no canonicalizer"),
    ]:
        changed = {key: value for key, value in {**config, **change}.items() if value is not None}
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            hub.from_pretrained(tmp_path)
    path.write_text(json.dumps(config))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model.safetensors"):
        hub.from_pretrained(tmp_path)


def test_pushing_sends_the_same_folder(hub, tmp_path, monkeypatch):
    from huggingface_hub import HfApi

    sent = {}

    def upload(self, *, repo_id, folder_path, **options):
        sent[repo_id] = sorted(path.name for path in folder_path.iterdir())

    class Repository:
        repo_id = "me/up"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, **options: Repository())
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    hub.from_file(f"canon_seg://{FILES[0]}").push_to_hub("me/up")
    assert sent == {"me/up": ["README.md", "config.json", "model.safetensors"]}


def test_a_missing_library_is_said(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("canon_seg.predictors.hub")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install canon_seg\[hub\]"):
        canon_seg.HubCanonicalizer  # noqa: B018


@pytest.mark.parametrize("name", ["/nowhere/model", "some/folder/model"])
def test_a_folder_that_is_not_there_is_named(hub, name):
    with pytest.raises(InputError, match=f"there is no folder {name}; give one that"):
        hub.from_pretrained(name)
