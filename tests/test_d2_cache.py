import copy
import pickle
import threading
from functools import partial

import pytest
import torch

import canon_seg.d2  # noqa: F401 - before detectron2
from canon_seg.core.tilting import Tilting
from canon_seg.d2.cache import ResultCache, content_key
from canon_seg.d2.soft_masks import BoxMasks
from canon_seg.images.soft_masks import ScoredMasks
from canon_seg.sam.prompted import enlarge_logits
from canon_seg.sam.prompts import Prompts

from detectron2.structures import Boxes, Instances


def result(count=3, size=(5, 7)):
    instances = Instances(size)
    instances.pred_masks = torch.rand(count, *size) > 0.5
    instances.pred_boxes = Boxes(torch.rand(count, 4))
    instances.scores = torch.rand(count)
    instances.rles = [{"size": list(size), "counts": b"abc"} for _ in range(count)]
    # A turned view, half precision, no elements, no axes.
    tensors = [torch.rand(4, 6).t(), torch.rand(3).bfloat16(), torch.zeros(0, 4), torch.tensor(7)]
    return [
        {"instances": instances, "panoptic_seg": (torch.arange(6).view(2, 3), [{"id": 1}])},
        {"sem_seg": tensors},
    ]


def assert_equal(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(ours, Instances):
        assert ours.image_size == theirs.image_size
        ours, theirs = ours.get_fields(), theirs.get_fields()
    if isinstance(ours, Boxes):
        ours, theirs = ours.tensor, theirs.tensor
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_equal(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            assert_equal(a, b)
    else:
        assert ours == theirs


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_comes_out_is_what_went_in(count):
    cache, kept = ResultCache(2**20), result(count)
    before = copy.deepcopy(kept)
    cache.put("key", kept)
    kept[0]["instances"].pred_masks.fill_(True)  # by the one who put it
    assert_equal(cache.get("key"), before)
    cache.get("key")[0]["instances"].scores.zero_()  # by one who took it
    assert_equal(cache.get("key"), before)
    assert (cache.hits, cache.misses) == (3, 0)


def test_masks_take_a_bit_for_each_pixel():
    cache = ResultCache(2**20)
    cache.put("key", torch.rand(100, 64, 64) > 0.5)
    assert 100 * 64 * 64 / 8 < cache.num_bytes < 100 * 64 * 64 / 8 + 500


def test_the_least_recently_used_goes_first():
    value = torch.zeros(1000, dtype=torch.uint8)
    cache = ResultCache(3500)
    for key in "abc":
        cache.put(key, value)
    assert cache.get("a") is not None
    cache.put("d", value)
    assert cache.get("b") is None
    assert all(cache.get(key) is not None for key in "acd")
    assert (cache.hits, cache.misses, len(cache)) == (4, 1, 3)
    assert 3000 < cache.num_bytes <= 3500
    cache.put("d", value)  # again
    assert len(cache) == 3 and cache.num_bytes <= 3500
    cache.put("large", torch.zeros(4000, dtype=torch.uint8))
    assert len(cache) == 3 and cache.get("large") is None
    cache.clear()
    assert (len(cache), cache.num_bytes, cache.get("a")) == (0, 0, None)


def test_copies_are_empty():
    cache = ResultCache(123)
    cache.put("key", 1)
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert (other.max_bytes, len(other), other.hits) == (123, 0, 0)


def test_several_threads():
    cache, problems = ResultCache(5000), []

    def use(seed):
        for step in range(300):
            key = (seed * step) % 13
            found = cache.get(key)
            if found is None:
                cache.put(key, torch.full((700,), key, dtype=torch.uint8))
            elif not (found == key).all():
                problems.append(key)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and cache.num_bytes <= 5000
    assert cache.hits + cache.misses == 1200


def inputs(**changes):
    base = {
        "image": torch.arange(24, dtype=torch.uint8).reshape(3, 2, 4),
        "height": 2,
        "width": 4,
        "prompts": Prompts(boxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]])),
    }
    return {**base, **changes}


def test_keys_tell_contents_apart():
    one, image = inputs(), inputs()["image"]
    other_boxes = Prompts(boxes=torch.tensor([[0.0, 0.0, 1.0, 1.5]]))
    points = Prompts(points=torch.tensor([[[0.0, 0.0]]]), point_labels=torch.tensor([[1]]))
    batches = [
        [one],
        [one, one],
        [],
        [inputs(image=image + 1)],
        [inputs(image=image.reshape(3, 4, 2))],
        [inputs(image=image.to(torch.int8))],
        [inputs(height=4)],
        [inputs(height=4, width=2)],
        [inputs(soft_masks=True)],
        [inputs(prompts=None)],
        [inputs(prompts=other_boxes)],
        [inputs(prompts=points)],
        [inputs(prompts=Prompts(boxes=one["prompts"].boxes, scores=torch.tensor([0.5])))],
        [inputs(prompts=Prompts(boxes=one["prompts"].boxes, classes=torch.tensor([0])))],
    ]
    assert len({content_key(batch) for batch in batches}) == len(batches)


def test_masks_that_are_not_cut_yet_are_kept():
    enlarge = partial(enlarge_logits, 16, (12, 16), (30, 40))
    logits = ScoredMasks(torch.randn(2, 4, 4), 0.0, (30, 40), enlarge)
    boxes = BoxMasks(torch.rand(1, 28, 28), torch.tensor([[3.0, 4.0, 20.0, 28.0]]), (30, 40))
    cache = ResultCache(2**20)
    cache.put("key", [logits, boxes])
    tilting = Tilting.expanding(20, (30, 40))
    for kept, given in zip(cache.get("key"), [logits, boxes], strict=True):
        assert torch.equal(kept.tilted(tilting), given.tilted(tilting))


def test_keys_are_of_values_not_of_memory():
    image = inputs()["image"]
    strided = image.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    same = [inputs(image=strided, file_name="b.jpg")]
    assert content_key(same) == content_key([inputs(file_name="a.jpg")])


def test_other_weights_are_noticed():
    module, cache = torch.nn.BatchNorm1d(3), ResultCache(1000)

    def kept():
        cache.follow(module)
        found = cache.get("key") is not None
        cache.put("key", torch.ones(3))
        return found

    assert [kept(), kept()] == [False, True]
    for change in (
        lambda: module.load_state_dict(module.state_dict()),
        lambda: module.running_mean.add_(1),
        lambda: setattr(module.weight, "data", torch.ones(3)),
        module.double,
    ):
        change()
        assert [kept(), kept()] == [False, True]
    with torch.inference_mode():
        cache.follow(torch.nn.Linear(2, 2))


def test_a_new_parameter_is_noticed_wherever_it_lies_in_memory():
    """The memory of the old one is free then, and torch likes to take it again."""
    module, cache = torch.nn.Linear(64, 64), ResultCache(100_000)
    for _ in range(50):
        module.weight = torch.nn.Parameter(module.weight.detach() * 1.1)
        cache.follow(module)
        assert cache.get("key") is None
        cache.put("key", torch.ones(3))
