"""HDF5 files of pyrogen and of users: the container that posteriors, checkpoints, draws and events share."""

from .container import (
    Kind,
    check_own,
    damage_named,
    growing_hdf5,
    is_labelled,
    open_any_hdf5,
    open_hdf5,
    package_versions,
    read_json,
    text_of,
    version_of,
    write_array,
    write_empty_hdf5,
    write_hdf5,
    write_json,
)
from .digests import BlockDigests, CheckedRows, seal
from .disk import uninterrupted
from .structure import check_datasets, check_inside, check_link

__all__ = [
    "BlockDigests",
    "CheckedRows",
    "Kind",
    "check_datasets",
    "check_inside",
    "check_link",
    "check_own",
    "damage_named",
    "growing_hdf5",
    "is_labelled",
    "open_any_hdf5",
    "open_hdf5",
    "package_versions",
    "read_json",
    "seal",
    "text_of",
    "uninterrupted",
    "version_of",
    "write_array",
    "write_empty_hdf5",
    "write_hdf5",
    "write_json",
]
