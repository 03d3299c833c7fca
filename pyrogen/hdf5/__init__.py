"""HDF5 files of pyrogen and of users: the container that posteriors, checkpoints, draws and events share."""

from .container import (
    damage_named,
    growing_hdf5,
    kind_of,
    open_any_hdf5,
    open_hdf5,
    package_versions,
    read_json,
    write_array,
    write_empty_hdf5,
    write_hdf5,
    write_json,
)
from .disk import uninterrupted

__all__ = [
    "damage_named",
    "growing_hdf5",
    "kind_of",
    "open_any_hdf5",
    "open_hdf5",
    "package_versions",
    "read_json",
    "uninterrupted",
    "write_array",
    "write_empty_hdf5",
    "write_hdf5",
    "write_json",
]
