"""What an HDF5 file says it holds, checked before anything of it is read: links, sizes, and whether it was written.

HDF5 files may point to other files, which would then be read in silence, and may declare far more than they hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import h5py

from ..files import FileFormatError

FREE = 2**28
LARGEST_RATIO = 100
"""The arrays of a file may take ``FREE`` bytes, or ``LARGEST_RATIO`` times the size of the file if that is more.

Events compress by a factor of about 1 to 3, and a column of equal numbers by up to 1000; gzip can't do better. A file
that holds little else than equal numbers is so far taken for what it is only up to ``FREE`` bytes.
"""
LARGEST_CHUNK = 2**26
LARGEST_CHUNK_RATIO = 20
"""A chunk is read as a whole: it may take ``LARGEST_CHUNK`` bytes, or this many times what its dataset takes."""


def check_structure(file: h5py.File) -> None:
    """Check a file of pyrogen's: it has no links, every object has one name, and sizes are possible.

    Raises:
        FileFormatError: naming the file and the entry.
    """
    check_datasets(file, [item for _, item in objects(file) if isinstance(item, h5py.Dataset)])


def check_datasets(file: h5py.File, datasets: list[h5py.Dataset]) -> None:
    """Check the datasets of a file that will be read: their numbers lie in the file, and fit into it.

    Raises:
        FileFormatError: naming the file and the dataset.
    """
    size, stored, logical = file.id.get_filesize(), 0, 0
    for dataset in datasets:
        check_inside(dataset)
        if dataset.dtype.hasobject:  # of a variable length: HDF5 can read a damaged one without an end
            raise FileFormatError(
                f"{file.filename}: dataset {dataset.name} holds no numbers; pyrogen reads no other data"
            )
        takes, own = dataset.id.get_storage_size(), math.prod(dataset.shape or ()) * dataset.dtype.itemsize
        stored, logical = stored + takes, logical + own
        _check_written(dataset, own)
        if dataset.chunks:
            chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
            if chunk > max(LARGEST_CHUNK, LARGEST_CHUNK_RATIO * takes):
                raise FileFormatError(
                    f"{file.filename}: dataset {dataset.name} has chunks of {chunk:,} bytes but takes {takes:,} bytes "
                    "in the file; this is no sensible size, and reading it could fill the memory"
                )
    if stored > size:
        raise FileFormatError(
            f"{file.filename} is damaged or incomplete: its datasets take {stored:,} bytes, but the file has {size:,}"
        )
    if logical > max(FREE, LARGEST_RATIO * size):
        raise FileFormatError(
            f"{file.filename} has {size:,} bytes, but declares arrays of {logical:,} bytes; more than "
            f"{LARGEST_RATIO} times the size of the file is not read, because it could fill the memory"
        )


def check_length(item: h5py.HLObject, attribute: str) -> None:
    """Raise a FileFormatError where an attribute has a variable length: HDF5 can read a damaged one without an end."""
    if item.attrs.get_id(attribute).dtype.hasobject:
        raise FileFormatError(
            f"{item.file.filename} is damaged, or was changed by another program: its attribute {attribute!r} has a "
            "variable length, which no attribute of a pyrogen file has"
        )


def check_inside(dataset: h5py.Dataset) -> None:
    """Raise a FileFormatError where the numbers of a dataset lie in other datasets or files; opens none of these."""
    plan = dataset.id.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL:
        what = "a virtual dataset, whose numbers lie in other datasets or files"
    elif plan.get_external_count():
        what = f"stored in another file, {plan.get_external(0)[0].decode(errors='replace')!r}"
    else:
        return
    raise FileFormatError(
        f"{dataset.file.filename}: dataset {dataset.name} is {what}; pyrogen reads only what lies in the file itself: "
        "copy the numbers into it"
    )


def check_link(group: h5py.Group, name: str) -> None:
    """Raise a FileFormatError where an entry of a group is a link; does not follow it."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.HardLink):
        return
    if isinstance(link, h5py.ExternalLink):
        target = f"{link.path!r} in the file {link.filename!r}"
    else:
        target = repr(getattr(link, "path", "something unknown"))
    where = f"{group.name.rstrip('/')}/{name}"
    raise FileFormatError(
        f"{group.file.filename}: {where} is a link to {target}; pyrogen follows no links: put the numbers there"
    )


def objects(file: h5py.File) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """All groups and datasets of a file of pyrogen's, sorted by name, the root first.

    Raises:
        FileFormatError: a link, an object with two names, or an object of another kind.
    """
    seen: set[int] = set()
    waiting = [file["/"]]
    while waiting:
        item = waiting.pop()
        if not isinstance(item, (h5py.Group, h5py.Dataset)):
            raise FileFormatError(f"{file.filename}: {item.name} is neither a group nor a dataset")
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            raise FileFormatError(f"{file.filename}: {item.name} is another name of something else in the file")
        seen.add(address)
        yield item.name, item
        if isinstance(item, h5py.Group):
            for name in sorted(item, reverse=True):
                check_link(item, name)
                waiting.append(item[name])


def _check_written(dataset: h5py.Dataset, size: int) -> None:
    """Parts of a dataset that were never written take no room in a file, and read as zeros."""
    if dataset.dtype.hasobject:
        return  # text lies in another place; nobody reads it
    if dataset.chunks:
        chunks = zip(dataset.shape, dataset.chunks, strict=True)
        declared = math.prod(-(-length // chunk) for length, chunk in chunks)
        complete = declared == dataset.id.get_num_chunks()
    else:
        complete = size == dataset.id.get_storage_size()
    if not complete:
        raise FileFormatError(
            f"{dataset.file.filename} is damaged or incomplete: dataset {dataset.name} declares {dataset.shape}, but "
            "not all of it was written"
        )
