"""Read ModelNet40 in the three forms in which it is distributed.

Wu et al., "3D ShapeNets: A Deep Representation for Volumetric Shapes" (CVPR 2015). The forms:

- ``modelnet40_ply_hdf5_2048``: HDF5 files of 2,048 points, listed in ``train_files.txt`` and
  ``test_files.txt``, y up;
- ``modelnet40_normal_resampled``: one text file a cloud, ``x,y,z,nx,ny,nz`` in each line, listed in
  ``modelnet40_train.txt`` and ``modelnet40_test.txt``, y up;
- meshes as ``CLASS/train/NAME.off`` and ``CLASS/test/NAME.off``, z up, from whose surfaces points
  are drawn.
"""

import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from canon_seg.errors import InputError
from canon_seg.points.clouds import CloudSet, make_cloud_set

PARTS = ("train", "test")

_HDF5_LIST = "{split}_files.txt"
_TEXT_LIST = "modelnet40_{split}.txt"


def read_clouds(folder: "str | Path", split: str, points: int, up: str = "") -> CloudSet:
    """Read one part of a folder of point clouds.

    Args:
        folder: in one of the three forms.
        split: "train" or "test".
        points: of each cloud: its first ones, or as many drawn from a mesh.
        up: the axis that is up, "y" or "z"; "" takes what the form is known for.

    Returns:
        the set, z up.

    Raises:
        InputError: naming the file, if the folder is in none of the forms, or a file is missing,
            cut short or damaged.
    """
    folder = Path(folder)
    if up not in ("", "y", "z"):
        raise InputError(f"DATA.UP is {up!r}; give 'y', 'z' or ''")
    if (folder / _HDF5_LIST.format(split=split)).is_file():
        read, usual = _read_hdf5, "y"
    elif (folder / _TEXT_LIST.format(split=split)).is_file():
        read, usual = _read_text, "y"
    elif any(folder.glob(f"*/{split}/*.off")):
        read, usual = _read_meshes, "z"
    else:
        raise InputError(
            f"{folder} holds no point clouds that can be read: give the folder "
            "modelnet40_ply_hdf5_2048, modelnet40_normal_resampled, or one with "
            f"CLASS/{split}/*.off"
        )
    clouds, labels, classes, sources = read(folder, split, points)
    if (up or usual) == "y":
        clouds = [cloud[:, [2, 0, 1]] for cloud in clouds]
    return make_cloud_set(clouds, labels, classes, folder.name, sources)


_Contents = tuple[list[np.ndarray], list[int], list[str], list[str]]


def _read_hdf5(folder: Path, split: str, points: int) -> _Contents:
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{folder} holds HDF5 files, which need the package h5py: pip install h5py"
        ) from error
    clouds: list[np.ndarray] = []
    labels: list[int] = []
    sources: list[str] = []
    for line in _lines(folder / _HDF5_LIST.format(split=split)):
        # The lists hold the paths of the machine where they were made.
        path = folder / Path(line).name
        try:
            with h5py.File(path) as file:
                data, found = file["data"][:], file["label"][:].reshape(-1)
        except (OSError, KeyError) as error:
            raise InputError(f"{path} cannot be read ({error}); get it again") from error
        if data.ndim != 3 or data.shape[2] != 3 or len(data) != len(found):
            raise InputError(
                f"{path} holds data of the shape {data.shape} and {len(found)} labels; its data "
                "should be M x N x 3 with one label for each of the M clouds"
            )
        _check_count(data.shape[1], points, path)
        clouds += list(data[:, :points])
        labels += found.astype(int).tolist()
        sources += [f"{path}, cloud {index}" for index in range(len(data))]
    names = folder / "shape_names.txt"
    classes = (
        _lines(names)
        if names.is_file()
        else [f"class {index}" for index in range(max(labels, default=-1) + 1)]
    )
    return clouds, labels, classes, sources


def _read_text(folder: Path, split: str, points: int) -> _Contents:
    classes = _lines(folder / "modelnet40_shape_names.txt")
    clouds, labels, sources = [], [], []
    for name in tqdm(_lines(folder / _TEXT_LIST.format(split=split)), f"reading {split} clouds"):
        kind = name.rpartition("_")[0]
        if kind not in classes:
            raise InputError(
                f"{folder / _TEXT_LIST.format(split=split)}: {name} belongs to no class of "
                "modelnet40_shape_names.txt"
            )
        path = folder / kind / f"{name}.txt"
        try:
            rows = np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2, max_rows=points)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); get it again") from error
        if rows.shape[1] < 3:
            raise InputError(f"{path} has {rows.shape[1]} columns; x,y,z are the least")
        _check_count(len(rows), points, path)
        clouds.append(rows[:, :3])
        labels.append(classes.index(kind))
        sources.append(str(path))
    return clouds, labels, classes, sources


def _read_meshes(folder: Path, split: str, points: int) -> _Contents:
    files = sorted(folder.glob(f"*/{split}/*.off"))
    # Of both parts: a class that one of them lacks must not move the numbers of the others.
    classes = sorted(
        {file.parent.parent.name for part in PARTS for file in folder.glob(f"*/{part}/*.off")}
    )
    clouds, labels = [], []
    for file in tqdm(files, f"reading {split} meshes"):
        vertices, triangles = read_off(file)
        # Drawn by the file's name: the same points in every run.
        rng = np.random.default_rng(zlib.crc32(file.name.encode()))
        clouds.append(sample_mesh(vertices, triangles, points, rng, str(file)))
        labels.append(classes.index(file.parent.parent.name))
    return clouds, labels, classes, [str(file) for file in files]


def read_off(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a mesh from an OFF file.

    Args:
        path: the file. The counts may follow "OFF" on its own line, as in some of ModelNet's files.

    Returns:
        (vertices, triangles): (V, 3) float64, and (T, 3) int64; polygons are cut into fans.

    Raises:
        InputError: naming the file, if it is no OFF file, or cut short.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as an OFF file ({error}); get it again") from error
    if not text.startswith("OFF"):
        raise InputError(f"{path} is no OFF file: it does not begin with OFF")
    lines = [line for line in text[3:].splitlines() if line.split("#")[0].strip()]
    try:
        num_vertices, num_faces = map(int, lines[0].split()[:2])
        vertices = np.array([line.split()[:3] for line in lines[1 : 1 + num_vertices]], np.float64)
        faces = [
            list(map(int, line.split()))
            for line in lines[1 + num_vertices : 1 + num_vertices + num_faces]
        ]
        if vertices.shape != (num_vertices, 3) or len(faces) != num_faces:
            raise ValueError("it is cut short")
        if any(len(face) < 1 + face[0] for face in faces):
            raise ValueError("a face is cut short")
        triangles = np.array(
            [(face[1], face[i], face[i + 1]) for face in faces for i in range(2, face[0])],
            np.int64,
        ).reshape(-1, 3)
        if len(triangles) and not (triangles.min() >= 0 and triangles.max() < num_vertices):
            raise ValueError("a face names a vertex that is not there")
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} is damaged ({error}); get it again") from error
    return vertices, triangles


def sample_mesh(
    vertices: np.ndarray,
    triangles: np.ndarray,
    count: int,
    rng: np.random.Generator,
    source: str,
) -> np.ndarray:
    """Draw points on a mesh, uniformly by area.

    Args:
        vertices: (V, 3).
        triangles: (T, 3) indices of vertices.
        count: points.
        rng: numpy Generator.
        source: for messages.

    Returns:
        (count, 3) float64.

    Raises:
        InputError: if the mesh has no area.
    """
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    total = areas.sum()
    if not (np.isfinite(total) and total > 0):
        raise InputError(f"{source}: the mesh has no area to draw points from; remove it")
    chosen = rng.choice(len(areas), size=count, p=areas / total)
    u, v = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    points: np.ndarray = (1 - u) * a[chosen] + u * (1 - v) * b[chosen] + u * v * c[chosen]
    return points


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); get it again") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _check_count(have: int, want: int, path: Path) -> None:
    if have < want:
        raise InputError(f"{path} has clouds of {have} points, fewer than the {want} asked for")
