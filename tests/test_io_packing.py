import sys
import zipfile
from pathlib import Path

import pack_weights
import pytest
import torch

from canon_seg.config.assets import resolve_asset
from canon_seg.errors import InputError
from canon_seg.io.checkpoint import load_torch_file
from canon_seg.io.files import save_torch
from canon_seg.io.packing import pack, pack_tensor, save_packed, unpack

KEY = "MODEL.CANONICALIZER.WEIGHTS"


def contents():
    rng = torch.Generator().manual_seed(0)
    filters = torch.randn(8, 16, 3, 3, generator=rng) * torch.logspace(-6, 3, 8).view(-1, 1, 1, 1)
    filters[3] = 0
    return {
        "version": 1,
        "state": {
            "filters": filters,
            "bias": torch.randn(2048, generator=rng),
            "small": torch.randn(2, 3, generator=rng),
            "steps": torch.arange(4096).view(64, 64),
        },
        "list": [filters[0].expand(8, 16, 3, 3).clone(), ("a", None)],
    }


def test_packed_files_are_read_as_the_weights_within_half_a_step(tmp_path):
    given = contents()
    save_packed(tmp_path / "packed.pth", given)
    read = load_torch_file(tmp_path / "packed.pth", KEY)
    assert read["version"] == 1 and read["list"][1] == ("a", None)
    for name in ("bias", "small", "steps"):
        assert torch.equal(read["state"][name], given["state"][name])
    filters, wanted = read["state"]["filters"], given["state"]["filters"]
    assert filters.dtype == torch.float32
    half_steps = wanted.abs().amax(dim=(1, 2, 3), keepdim=True) / 127 / 2
    assert ((filters - wanted).abs() <= half_steps * 1.001).all()
    assert not filters[3].any() and filters[4].any()
    assert [path.name for path in tmp_path.iterdir()] == ["packed.pth"]


def test_fewer_levels_make_a_smaller_file(tmp_path):
    given = {"weights": torch.randn(64, 256, generator=torch.Generator().manual_seed(0))}
    save_torch(tmp_path / "plain.pth", {"weights": given["weights"].half()})
    sizes = [(tmp_path / "plain.pth").stat().st_size]
    for levels in (127, 31):
        save_packed(tmp_path / f"{levels}.pth", given, levels)
        sizes.append((tmp_path / f"{levels}.pth").stat().st_size)
    assert sizes[0] > 1.8 * sizes[1] and sizes[1] > 1.2 * sizes[2]
    with zipfile.ZipFile(tmp_path / "31.pth") as archive:
        assert archive.testzip() is None


def test_packing_changes_neither_what_is_given_nor_tensors_that_are_packed():
    given = contents()
    before = given["state"]["filters"].clone()
    again = unpack(pack(unpack(pack(given))))
    assert torch.equal(given["state"]["filters"], before)
    torch.testing.assert_close(
        again["state"]["filters"], unpack(pack(given))["state"]["filters"], rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed.update(packed_scales=torch.ones(3)),
        lambda packed: packed.update(packed_codes=packed["packed_codes"].float()),
        lambda packed: packed.update(packed_scales="1"),
        lambda packed: packed.update(packed_codes=torch.tensor(1, dtype=torch.int8)),
    ],
)
def test_codes_and_scales_that_do_not_fit_are_refused_with_the_file(tmp_path, spoil):
    packed = pack_tensor(torch.randn(4, 300, generator=torch.Generator().manual_seed(0)))
    spoil(packed)
    save_torch(tmp_path / "spoilt.pth", {"state": {"weights": packed}})
    with pytest.raises(
        InputError, match=r"spoilt\.pth \(MODEL\.CANONICALIZER\.WEIGHTS\).*do not fit"
    ):
        load_torch_file(tmp_path / "spoilt.pth", KEY)


def test_the_command_packs_the_embedded_canonicalizer(tmp_path, monkeypatch, capsys):
    source, output = resolve_asset("canon_seg://canonicalizer_gcnn.pth"), tmp_path / "packed.pth"
    monkeypatch.setattr("sys.argv", ["pack_weights.py", str(source), str(output)])
    pack_weights.main()
    assert f"{output}: " in capsys.readouterr().out
    assert output.stat().st_size < 0.75 * Path(source).stat().st_size
    assert load_torch_file(output, KEY).keys() == load_torch_file(source, KEY).keys()
    monkeypatch.setattr("sys.argv", [*sys.argv, "--levels", "128"])
    with pytest.raises(InputError, match="--levels is 128; give 1 to 127"):
        pack_weights.main()
