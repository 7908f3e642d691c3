"""Which kind of data a name or path means, seen without torch and without reading more than names and headers."""

import os
from collections.abc import Sequence
from pathlib import Path

from ncmi.data.arrays import archive_shapes
from ncmi.data.cifar_sets import CIFAR_SETS, CifarSource, cifar_at, find_cifar, not_found
from ncmi.data.columns import COORDS_KEYS, FEATURE_KEYS, INPUT_ARRAYS, LABEL_COLUMNS, called_like
from ncmi.data.image_labels import IMAGE_SUFFIXES, LABEL_FILE_SUFFIXES, names_images
from ncmi.data.shards.index import is_address, is_shards
from ncmi.errors import listing, naming
from ncmi.files import check_regular, is_system_file, visible
from ncmi.recipes.data import Kind

EMBEDDED: dict[str, Kind] = {"digits": "image", "wine": "table", "breast_cancer": "table", "iris": "table"}
"""Data sets that come with scikit-learn, and their kinds."""
TABLE_SUFFIXES = (
    *(".csv", ".tsv", ".txt", ".data", ".dat", ".tab", ".test", ".all", ".all-data", ".arff", ".psv", ".ssv"),
    *(".parquet", ".pq", ".feather", ".arrow", ".xlsx", ".xlsm", ".xls", ".ods"),
)
"""Of tables; each of text may be packed as well, see :data:`PACKED_SUFFIXES`."""
PACKED_SUFFIXES = (".gz", ".zip", ".xz", ".bz2")
FILE_SUFFIXES = (".npz", *TABLE_SUFFIXES)
BAG_SUFFIXES = (".h5", ".hdf5", ".h5ad", ".pt", ".pth", ".npz", ".npy")
ZARR = ".zarr"
WHOLE_SLIDE_SUFFIXES = (
    *(".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".svslide", ".bif"),
    *(".dcm", ".czi", ".isyntax"),
)
"""Of whole-slide images, beside .tif and .tiff, which are whole slides where they are large."""
_LARGE = 100_000_000  # bytes of a .tif
INNER_FOLDERS = ("pt_files", "h5_files", "features")
"""Of a folder of bags, where the bags may lie."""
_TILE = (
    "cut the slides into patches with `ncmi slides tile`, embed these with `ncmi slides embed` and give the features"
)
_READ = (
    "give a table (.csv, .tsv, .data, .arff, .parquet, .xlsx or other text), an .npz file, a folder of images with one "
    "subfolder for each class, or features of slides (an .h5 file, or a folder of one .h5, .pt or .npz file a slide)"
)


def kind_of(name: str, data_dir: str | None = None, images: str | None = None) -> Kind:
    """Whether data is a table, images or bags.

    Args:
        name: embedded name, ``cifar10`` or ``cifar100``, path, or name below the data folder.
        data_dir: folder to search for names; by default the environment variable ``NCMI_DATA``.
        images: folder of the images that a table names, where they do not lie beside it.

    Raises:
        FileNotFoundError: if nothing has this name.
        ValueError: for what is no data of any kind, such as whole-slide images that are not embedded yet.

    Example:
        >>> kind_of("digits"), kind_of("wine")
        ('image', 'table')
    """
    if name in EMBEDDED:
        return EMBEDDED[name]
    if is_address(name):
        return "image"
    path, cifar = find_source(name, data_dir)
    if cifar is not None:
        return "image"
    with naming(path):
        if path.is_dir():
            return _kind_of_folder(path)
        return _kind_of_file(path, None if images is None else Path(images).expanduser())


def find_source(name_or_path: str, data_dir: str | None = None) -> tuple[Path, CifarSource | None]:
    """Where the data of a name or path lies, and which layout of CIFAR it is, if it is one."""
    folder = data_dir or os.environ.get("NCMI_DATA")
    if name_or_path in CIFAR_SETS:
        if cifar := find_cifar(name_or_path, folder):
            return cifar.path, cifar
        try:
            path = find_data(name_or_path, data_dir)
        except FileNotFoundError:
            path = Path(name_or_path)
        if not path.is_file():  # such as cifar10.npz
            raise FileNotFoundError(not_found(name_or_path, folder))
    else:
        path = find_data(name_or_path, data_dir)
    with naming(path):
        cifar = cifar_at(path)
    return (cifar.path if cifar else path), cifar


def find_data(name_or_path: str, data_dir: str | None = None) -> Path:
    """The path meant by a path, or by a name in ``data_dir`` or ``NCMI_DATA``."""
    path = Path(name_or_path).expanduser()
    if path.exists():
        if not path.is_file() and not path.is_dir():
            raise ValueError(f"{path}: a pipe, socket or device, not a file: give a file or folder of data")
        return path
    cure = (
        f"embedded data sets are {', '.join(EMBEDDED)}; otherwise give the path of a table (such as .csv or .parquet), "
        f"of an .npz file, or of a folder of images or of {' or '.join(CIFAR_SETS)}, or of features of slides"
    )
    where = data_dir or os.environ.get("NCMI_DATA")
    if not where:
        raise FileNotFoundError(f"no data set {name_or_path!r}: {cure}, or set NCMI_DATA to a folder that holds it")
    folder = Path(where).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no data set {name_or_path!r} and no data folder {folder}: {cure}")
    if (folder / path).exists():
        return folder / path
    named = (p for p in folder.rglob("*") if unpacked_name(p).stem == name_or_path and is_data_name(p))
    files = sorted(p for p in named if p.is_file())
    if len(files) > 1:
        raise ValueError(f"{name_or_path!r} is ambiguous: give one of the paths {', '.join(map(str, files))}")
    if not files:
        raise FileNotFoundError(f"no data set {name_or_path!r}, nor a file of that name below {folder}: {cure}")
    return files[0]


def locate(name_or_path: str | Path) -> Path:
    """The path that :func:`find_data` finds; the path as it is where there is none."""
    try:
        return find_data(str(name_or_path))
    except FileNotFoundError:
        return Path(name_or_path).expanduser()


def unpacked_name(path: Path) -> Path:
    """A file's name without the ending of an archive.

    >>> unpacked_name(Path("a/iris.csv.gz")).name
    'iris.csv'
    """
    return path.with_suffix("") if path.suffix.lower() in PACKED_SUFFIXES else path


def is_data_name(path: Path) -> bool:
    """Whether a file's name is one of tables or arrays, packed or not.

    >>> [is_data_name(Path(name)) for name in ("iris.data", "iris.csv.gz", "cifar-10-python.tar.gz", "iris.names")]
    [True, True, False, False]
    """
    return unpacked_name(path).suffix.lower() in FILE_SUFFIXES


def is_table_file(path: Path) -> bool:
    """Whether a file is a table by its name, or holds lines of text with separators; a pipe or device is none."""
    if not path.is_file():
        return False
    inner = unpacked_name(path)
    if inner.suffix.lower() in TABLE_SUFFIXES or path.suffix.lower() == ".zip":
        return True
    if path.suffix.lower() in (".npz", *BAG_SUFFIXES, *IMAGE_SUFFIXES, *WHOLE_SLIDE_SUFFIXES, ".json", ".py", ".md"):
        return False
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head.startswith(b"PAR1"):
        return True
    lines = [line for line in head.split(b"\n")[:50] if line.strip()]
    if len(lines) < 2 or any(byte < 9 for byte in head):
        return False
    return any(all(sign in line for line in lines[:-1]) for sign in (b",", b";", b"\t", b"|"))


def _kind_of_file(path: Path, images: Path | None) -> Kind:
    check_regular(path)
    suffix = path.suffix.lower()
    if suffix in LABEL_FILE_SUFFIXES and names_images(path, images):
        return "image"
    if unpacked_name(path).suffix.lower() in TABLE_SUFFIXES:
        return "table"
    if suffix == ".npz":
        return _kind_of_arrays(archive_shapes(path))
    if suffix in BAG_SUFFIXES and suffix != ".npy":
        return "bags"
    if _is_whole_slide(path):
        raise ValueError(f"a whole-slide image: {_TILE}")
    if suffix in IMAGE_SUFFIXES:
        raise ValueError("one image is no data set: give a folder of images with one subfolder for each class")
    if is_table_file(path):
        return "table"
    raise ValueError(f"a file of type {suffix or 'unknown'} cannot be read: {_READ}")


def _kind_of_arrays(shapes: dict[str, tuple[int, ...]]) -> Kind:
    one_bag = called_like(shapes, FEATURE_KEYS) and called_like(shapes, COORDS_KEYS) and not _are_labeled(shapes)
    if {"bag", "bag_label"} <= shapes.keys() or one_bag:
        return "bags"
    inputs = ["x_train"] if "x_train" in shapes else called_like(shapes, INPUT_ARRAYS)
    if not inputs:
        raise ValueError(
            f"no inputs found among the arrays {listing(list(shapes))}: call them {' or '.join(INPUT_ARRAYS)}"
        )
    return "image" if len(shapes[inputs[0]]) in (3, 4) else "table"


def _are_labeled(shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether there is a label for each row, and not, if any, one for all of them."""
    rows = {shapes[name][:1] for name in called_like(shapes, (*INPUT_ARRAYS, *FEATURE_KEYS))}
    return any(shapes[name][:1] in rows for name in called_like(shapes, LABEL_COLUMNS))


def _kind_of_folder(folder: Path) -> Kind:
    if is_shards(folder):
        return "image"
    if is_bag_file(folder):
        return "bags"
    entries = visible(folder)
    folders = [entry for entry in entries if entry.is_dir()]
    files = [entry for entry in entries if entry.is_file()]
    if bags := _bags(entries):
        if all(file.suffix.lower() == ".npz" for file in bags):
            with naming(bags[0].name):
                shapes = archive_shapes(bags[0])
            if "x_train" in shapes or "bag_label" in shapes or _are_labeled(shapes):
                names = listing([file.name for file in bags], 3)
                raise ValueError(f"a folder of data sets ({names}): give the path of one of them")
        return "bags"
    if any(_bags(visible(folder / inner)) for inner in INNER_FOLDERS if (folder / inner).is_dir()):
        return "bags"
    inside = [(entry, visible(entry)) for entry in folders]
    if any(_is_whole_slide(file) for file in (*files, *(file for _, entries in inside for file in entries))):
        raise ValueError(f"a folder of whole-slide images: {_TILE}")
    if any(entry.suffix.lower() in IMAGE_SUFFIXES for _, entries in inside for entry in entries):
        return "image"
    if any(f.suffix.lower() in LABEL_FILE_SUFFIXES and f.is_file() and names_images(f) for f in files):
        return "image"
    if folders and all(bag_in(entry) is not None for entry in folders):
        return "bags"
    if nested := [str(entry) for entry, entries in inside if _bags(entries)]:
        raise ValueError(f"no features of slides here, but in {listing(nested, 3)}: give that folder")
    if any(_holds_images(entry) for entry in folders):
        return "image"
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
        raise ValueError(
            "images, but no subfolder: expected one subfolder of images for each class, or a file of labels (.csv) "
            "with columns file and label beside the images"
        )
    if sets := [entry.name for entry in files if is_data_name(entry)]:
        raise ValueError(f"a folder of data sets ({listing(sets, 3)}): give the path of one of them")
    raise ValueError(f"a folder of no data that is known: {_READ}")


def _holds_images(folder: Path, most: int = 10_000) -> bool:
    """Whether a folder has images further below; no more than so many entries are looked at."""
    seen = 0
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_system_file(name))
        if any(name.lower().endswith(IMAGE_SUFFIXES) for name in files):
            return True
        seen += len(folders) + len(files)
        if seen > most:
            return False
    return False


def bag_in(folder: Path) -> Path | None:
    """The one file of features in a slide's own folder, called like features; None where there is none, or several."""
    files = [entry for entry in _bags(visible(folder)) if entry.stem.lower() in FEATURE_KEYS]
    return files[0] if len(files) == 1 else None


def _bags(entries: Sequence[Path]) -> list[Path]:
    return [entry for entry in entries if is_bag_file(entry)]


def is_bag_file(path: Path) -> bool:
    """Whether something is a bag's file by its name; a Zarr store is a folder."""
    if path.suffix.lower() == ZARR:
        return path.is_dir()
    return path.suffix.lower() in BAG_SUFFIXES and path.is_file()


def _is_whole_slide(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        return path.is_file() and path.stat().st_size > _LARGE
    return suffix in WHOLE_SLIDE_SUFFIXES
