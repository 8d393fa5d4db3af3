"""escnn on planar groups without lie_learn and py3nj, in fresh processes."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

needs_escnn = pytest.mark.skipif(find_spec("escnn") is None, reason="escnn is not installed")

# Takes packages away where they are installed; the stand-ins come after this finder.
HIDE = """
import sys
class Hidden:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("lie_learn", "py3nj"):
            for finder in sys.meta_path:
                if type(finder).__module__.startswith("canon_seg."):
                    return finder.find_spec(name, path, target)
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Hidden)
"""


def run_python(code, *folders):
    """Run code in a fresh interpreter with ``folders`` first on its path: its two outputs."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


@needs_escnn
def test_planar_convolutions_run():
    code = """
import torch
from canon_seg.networks import escnn_stand_ins
from escnn import gspaces, nn
import lie_learn
assert lie_learn.__spec__.loader.__class__.__module__ == escnn_stand_ins.__name__
torch.manual_seed(0)
image = torch.randn(1, 1, 9, 9)
for name, space in {
    "C4": gspaces.rot2dOnR2(4),
    "C8": gspaces.rot2dOnR2(8),
    "D4": gspaces.flipRot2dOnR2(4),
    "SO2": gspaces.rot2dOnR2(-1, maximum_frequency=2),
}.items():
    other = space.regular_repr if space.fibergroup.order() > 0 else space.irrep(1)
    into = nn.FieldType(space, [space.trivial_repr])
    out = nn.FieldType(space, [space.trivial_repr, other])
    layer = nn.R2Conv(into, out, 5, bias=False).eval()
    with torch.no_grad():
        straight, turned = (
            layer(nn.GeometricTensor(x, into)).tensor for x in (image, image.rot90(1, (2, 3)))
        )
    straight, turned = straight[:, 0], turned[:, 0]  # the field of numbers: only places move
    assert straight.abs().max() > 1e-3
    error = (straight.rot90(1, (1, 2)) - turned).abs().max()
    assert error < 1e-4 * straight.abs().max(), (name, error)
    print(name)
"""
    assert run_python(HIDE + code) == ("C4\nC8\nD4\nSO2", "")


def test_what_needs_lie_learn_says_so():
    code = """
from canon_seg.networks import escnn_stand_ins
from lie_learn.representations.SO3.wigner_d import wigner_D_matrix
try:
    wigner_D_matrix(1, 0.0, 0.0, 0.0, field="real")
except NotImplementedError as error:
    print(error)
"""
    assert run_python(HIDE + code)[0].startswith("lie_learn is not installed, which escnn needs")


def test_only_what_escnn_imports_has_a_stand_in():
    code = """
from canon_seg.networks import escnn_stand_ins
for name in ("lie_learn.spaces", "lie_learn.representations.SO3.spherical_harmonics", "py3nj"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        print("missing")
"""
    assert run_python(HIDE + code)[0].split() == ["missing"] * 3


def test_an_installed_package_is_kept(tmp_path):
    package = tmp_path / "lie_learn" / "representations" / "SO3"
    package.mkdir(parents=True)
    for folder in (package, *list(package.parents)[:2]):
        (folder / "__init__.py").write_text("")
    (package / "wigner_d.py").write_text("wigner_D_matrix = 'own'")
    code = (
        "from canon_seg.networks import escnn_stand_ins\n"
        "from lie_learn.representations.SO3.wigner_d import wigner_D_matrix\n"
        "print(wigner_D_matrix)"
    )
    assert run_python(code, tmp_path)[0] == "own"


def test_neither_torch_nor_escnn_is_imported():
    code = """
import sys
from canon_seg.networks import escnn_stand_ins
print({"torch", "escnn"} & set(sys.modules))
"""
    assert run_python(code)[0] == "set()"
