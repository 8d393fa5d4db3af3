import pytest

from canon_seg.errors import InputError
from canon_seg.io.relay import RaisingLoader, bad_example


def test_bad_input_is_raised_where_the_batch_is_asked_for():
    good = [{"image": 1}, {"image": 2}]
    error = InputError("a.png: is empty")
    batches = iter(RaisingLoader([good, [good[0], bad_example(error, height=1)], good]))
    assert next(batches) is good
    with pytest.raises(InputError) as caught:
        next(batches)
    assert caught.value is error


def test_what_batching_reads_is_kept():
    assert (
        bad_example(InputError("x"), height=3, width=4).items() >= {"height": 3, "width": 4}.items()
    )
