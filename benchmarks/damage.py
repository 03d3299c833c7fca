"""Ways to damage a file: bytes flipped, zeroed, lost or moved; other entries of HDF5; other lines of a text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def _damage_bytes(path: Path, rng: np.random.Generator) -> str:
    content = bytearray(path.read_bytes())
    size = len(content)
    first = int(rng.integers(size))
    length = int(min(size - first, 2 ** rng.integers(0, 13)))
    block = slice(first, first + length)
    what = str(rng.choice(["flip", "flips", "byte", "zeros", "noise", "cut", "drop", "double", "move", "append"]))
    if what == "flip":
        content[first] ^= 1 << int(rng.integers(8))
    elif what == "flips":
        for at in rng.integers(size, size=int(rng.integers(2, 9))):
            content[at] ^= 1 << int(rng.integers(8))
    elif what == "byte":
        content[first] = int(rng.integers(256))
    elif what == "zeros":
        content[block] = bytes(length)
    elif what == "noise":
        content[block] = rng.bytes(length)
    elif what == "cut":
        del content[first:]
    elif what == "drop":
        del content[block]
    elif what == "double":
        content[block] = content[block] * 2
    elif what == "move":
        piece = content[block]
        del content[block]
        at = int(rng.integers(len(content) + 1))
        content[at:at] = piece
    else:
        content += rng.bytes(length)
    path.write_bytes(content)
    return f"{what} at {first}, {length} bytes"


def _damage_structure(path: Path, rng: np.random.Generator) -> str:
    with h5py.File(path, "r+") as file:
        items: list[h5py.Dataset | h5py.Group] = []
        file.visititems(lambda _, item: items.append(item))
        datasets = [item for item in items if isinstance(item, h5py.Dataset)]
        item = datasets[int(rng.integers(len(datasets)))]
        name = item.name
        changes = {
            "gone": lambda: file.__delitem__(name),
            "renamed": lambda: file.move(name, name + "_"),
            "group gone": lambda: file.__delitem__(items[int(rng.integers(len(items)))].name),
            "zeros": lambda: _replace(file, name, np.zeros_like(item[()])),
            "other type": lambda: _replace(file, name, _other_type(item[()], rng)),
            "row less": lambda: _replace(file, name, item[()][:-1] if item.ndim and len(item) > 1 else np.zeros(0)),
            "axis more": lambda: _replace(
                file, name, item[()][..., None] if item.dtype.names is None else item[()][None]
            ),
            "empty": lambda: _replace(file, name, h5py.Empty("f8")),
            "text": lambda: _replace(file, name, np.bytes_(b"text")),
            "one number": lambda: _one_number(file, item, rng),
            "soft link": lambda: _relink(file, name, h5py.SoftLink(datasets[0].name)),
            "external link": lambda: _relink(file, name, h5py.ExternalLink(str(path.with_name("other.h5")), "x")),
            "link to itself": lambda: _relink(file, name, h5py.SoftLink(name)),
            "external storage": lambda: _external(file, item, path),
            "virtual": lambda: _virtual(file, item, path),
            "huge": lambda: _huge(file, item),
            "group": lambda: _relink(file, name, None),
            "attribute": lambda: _attribute(file, rng),
            "swapped": lambda: _swap(file, name, datasets[int(rng.integers(len(datasets)))].name),
            "JSON": lambda: _json(file, datasets, rng),
            "not finite": lambda: _not_finite(file, item, rng),
        }
        what = str(rng.choice(list(changes)))
        try:
            changes[what]()
        except (TypeError, ValueError, KeyError, OSError, RuntimeError, IndexError) as error:
            return f"{what} of {name}: not possible ({error})"
        return f"{what} of {name}"


def _replace(file: h5py.File, name: str, content: Any) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, data=content)
    for key, value in attributes.items():
        file[name].attrs[key] = value


def _relink(file: h5py.File, name: str, link: Any) -> None:
    del file[name]
    if link is None:
        file.create_group(name)
    else:
        file[name] = link


def _other_type(content: Any, rng: np.random.Generator) -> np.ndarray:
    wanted = str(rng.choice(["f4", "f8", "i4", "u1", "c16", ">f8", "f2", "?"]))
    return np.asarray(content).astype(wanted)


def _one_number(file: h5py.File, item: h5py.Dataset, rng: np.random.Generator) -> None:
    content = np.array(item[()])
    flat = content.reshape(-1).view(np.uint8)
    flat[int(rng.integers(flat.size))] ^= 1 << int(rng.integers(8))
    item[...] = content  # in place: checksums of HDF5's own are right again


def _not_finite(file: h5py.File, item: h5py.Dataset, rng: np.random.Generator) -> None:
    content = np.array(item[()])
    at = np.unravel_index(int(rng.integers(content.size)), content.shape)
    with np.errstate(all="ignore"):
        content[at] = rng.choice([np.nan, np.inf, -1.0, 1e300])
    item[...] = content


def _external(file: h5py.File, item: h5py.Dataset, path: Path) -> None:
    raw = path.with_name("raw.bin")
    content = np.ascontiguousarray(item[()])
    raw.write_bytes(content.tobytes())
    name, shape, dtype = item.name, item.shape, item.dtype
    del file[name]
    file.create_dataset(name, shape, dtype, external=[(str(raw), 0, content.nbytes)])


def _virtual(file: h5py.File, item: h5py.Dataset, path: Path) -> None:
    layout = h5py.VirtualLayout(item.shape, item.dtype)
    layout[...] = h5py.VirtualSource(".", item.name, item.shape)  # of itself
    name = item.name
    del file[name]
    file.create_virtual_dataset(name, layout)


def _huge(file: h5py.File, item: h5py.Dataset) -> None:
    name, shape, dtype = item.name, item.shape, item.dtype
    del file[name]
    file.create_dataset(name, (10**9, *shape[1:]), dtype, chunks=(1024, *shape[1:]), compression="gzip")


def _attribute(file: h5py.File, rng: np.random.Generator) -> None:
    key = str(rng.choice(list(file.attrs)))
    if rng.random() < 0.3:
        del file.attrs[key]
    else:
        file.attrs[key] = rng.choice(np.array([0, 3, -1, 2.5, np.nan]))


def _swap(file: h5py.File, one: str, other: str) -> None:
    file.move(one, "between")
    if one != other:
        file.move(other, one)
    file.move("between", other)


def _json(file: h5py.File, datasets: list[h5py.Dataset], rng: np.random.Generator) -> None:
    """Another value for one of the entries of one of the JSON texts."""
    texts = [item for item in datasets if item.dtype == np.uint8 and item.ndim == 1]
    item = texts[int(rng.integers(len(texts)))]
    value = json.loads(item[()].tobytes())
    node, steps = value, []
    while isinstance(node, (dict, list)) and node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        steps.append((node, keys[int(rng.integers(len(keys)))]))
        node = steps[-1][0][steps[-1][1]]
    other = [None, -1, 1e9, "x", [], {}, True, float("nan")][int(rng.integers(8))]
    if steps:
        parent, key = steps[-1]
        if rng.random() < 0.3:
            del parent[key]
        else:
            parent[key] = other
    _replace(file, item.name, np.frombuffer(json.dumps(value if steps else other).encode(), np.uint8))


def _damage_text(path: Path, rng: np.random.Generator) -> str:
    packed = path.suffix == ".gz"
    lines = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).split(b"\n")
    at, other = (int(i) for i in rng.integers(len(lines), size=2))
    what = str(rng.choice(["gone", "double", "swap", "word", "word gone", "raw", "long", "twice"]))
    words = lines[at].split(b" ")
    word = int(rng.integers(len(words)))
    if what == "gone":
        del lines[at]
    elif what == "double":
        lines.insert(at, lines[at])
    elif what == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif what == "word":
        words[word] = [b"nan", b"-1", b"x", b"1e999", b"999999999", b"", b"<event>", b"0x1"][int(rng.integers(8))]
        lines[at] = b" ".join(words)
    elif what == "word gone":
        del words[word]
        lines[at] = b" ".join(words)
    elif what == "raw":
        lines[at] += [b" & b", b" \xe9", b" <", b" \x00", b"<!-- "][int(rng.integers(5))]
    elif what == "long":
        lines[at] += b" 1" * 1_000_000
    else:
        lines += lines
    content = b"\n".join(lines)
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    return f"{what} at line {at}"


def mutate(path: Path, rng: np.random.Generator) -> tuple[str, bool]:
    """Damage a file in place.

    Returns:
        What was done, and whether a reader has to notice: who writes a file anew, checksums and all, has written
        another file.
    """
    if path.suffix == ".h5" and rng.random() < 0.5:
        return _damage_structure(path, rng), True
    if ".lhe" in path.name and rng.random() < 0.5:
        return _damage_text(path, rng), False
    return _damage_bytes(path, rng), True
