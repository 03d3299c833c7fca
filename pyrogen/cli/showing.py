"""``show``: what is in a file of pyrogen, or in a run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py

from pyrogen.cli.problems import OK, CommandError, one_line
from pyrogen.cli.run_folder import RunFolder
from pyrogen.cli.yaml_card import written
from pyrogen.events import read
from pyrogen.files import FileFormatError
from pyrogen.hdf5 import open_any_hdf5, read_json
from pyrogen.hdf5.container import kind_of, version_of
from pyrogen.posterior import load
from pyrogen.printing import data_size

LONG = 400  # characters of a value


def show(file: str) -> int:
    """What is in a file of pyrogen, or in a run folder: kind, size, versions, configuration.

    Args:
        file: posterior, events, checkpoint, or another file of pyrogen; run card; or run folder.

    Raises:
        CommandError: no such file, or none that pyrogen knows.
        FileFormatError: a damaged file.
    """
    print("\n".join(lines_of(Path(file))))
    return OK


def lines_of(path: Path) -> Iterator[str]:
    """What is in a file or folder, line by line."""
    if not path.exists():
        raise CommandError(f"no such file or folder: {path}")
    if path.is_dir():
        yield from _folder(path)
        return
    if path.suffix in (".yaml", ".yml"):
        yield f"{path}: a run card; pyrogen fit {path} runs it"
        return
    if path.suffix in (".h5", ".hdf5"):
        yield from _hdf5(path)
        return
    if path.suffix == ".json":
        yield from _json(path)
        return
    try:
        yield from _events(path)
    except ValueError as error:
        raise CommandError(f"{path} is no file that pyrogen knows: {one_line(error)}") from error


def _folder(path: Path) -> Iterator[str]:
    folder = RunFolder(path)
    if not folder.card.exists():
        raise CommandError(f"{path} is no run folder: it has no card.yaml; give a file, or a folder of pyrogen fit")
    summary = folder.read_summary()
    status = summary.get("status", "not finished")
    yield f"{path}: run folder, {status} {summary.get('date', '')}".rstrip()
    if status != "finished":
        yield f"go on with: pyrogen resume {path}"
    for name in ("command", "message", "backend", "seconds", "events", "verdicts", "verdicts of columns", "versions"):
        if name in summary:
            yield f"{name}: {_short(summary[name])}"
    for finding in summary.get("findings", ()):
        yield f"finding: {finding.get('problem')}: {finding.get('found')}"
    yield "files:"
    for file in sorted(each for each in path.rglob("*") if each.is_file() and not each.name.startswith(".")):
        yield f"  {file.relative_to(path)}  {data_size(file.stat().st_size)}"
    yield "card:"
    yield from (f"  {line}" for line in _without_comments(folder.card.read_text(encoding="utf-8")))


def _without_comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _hdf5(path: Path) -> Iterator[str]:
    with open_any_hdf5(path) as file:
        kind, version = kind_of(file), version_of(file)
        versions = read_json(file, "package_versions") if "package_versions" in file else {}
        configuration = _identity(file) if kind == "checkpoint" else {}
        arrays = _arrays(file) if kind not in ("posterior", "events", "checkpoint", None) else []
    size = data_size(path.stat().st_size)
    if kind is None:
        yield f"{path}: HDF5 file of another program, {size}"
        try:
            yield from _events(path)
        except FileFormatError as error:
            yield f"no events: {one_line(error)}"
        return
    yield f"{path}: pyrogen {kind} file, format version {version}, {size}"
    if versions:
        yield "versions: " + ", ".join(f"{name} {number}" for name, number in versions.items())
    if kind == "posterior":
        yield from _posterior(path)
    elif kind == "events":
        yield from _events(path)
    for name, value in configuration.items():
        yield f"{name}: {_short(value)}"
    yield from arrays


def _identity(file: h5py.File) -> Mapping[str, Any]:
    """What a checkpoint says of its run, and how far it is."""
    found = {name: value for name, value in read_json(file, "identity").items() if name != "flow_buffers"}
    state = read_json(file, "state")
    found["state"] = {name: value for name, value in state.items() if isinstance(value, (int, float, str, bool))}
    model = dict(found.get("model", {}))
    model.pop("parameters", None)
    return found | {"model": model}


def _posterior(path: Path) -> Iterator[str]:
    try:
        posterior = load(path)
    except FileFormatError as error:
        if "flow=" not in str(error):
            raise
        yield f"a flow of the user's own: {one_line(error)}"
        return
    yield repr(posterior)
    model = {name: value for name, value in posterior.model.describe().items() if name != "parameters"}
    yield "columns: " + ", ".join(posterior.names)
    if posterior.info.context_names:
        yield "conditions: " + ", ".join(posterior.info.context_names)
    yield from (f"model {name}: {_short(value)}" for name, value in model.items())
    yield from str(posterior.info).splitlines()[1:]


def _events(path: Path) -> Iterator[str]:
    sample = read(path)
    yield sample.summary()
    if sample.uncertainties is not None:
        yield f"relative uncertainty of each event, {sample.uncertainties.mean():.2%} in the mean"
    if sample.log_weights is not None:
        yield f"log weights of {sample.log_weights.shape[1]} weight draws"
    for name, value in sample.provenance.items():
        yield f"{name}: {_short(value)}"


def _json(path: Path) -> Iterator[str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} is no JSON: {error}") from None
    yield f"{path}: JSON"
    if isinstance(content, dict):
        yield written(content, {}).rstrip()
    else:
        yield _short(content)


def _arrays(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(
        lambda name, item: found.append(f"  {name} {list(item.shape)}") if isinstance(item, h5py.Dataset) else None
    )
    return ["arrays:", *sorted(found)]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {_short(each)}" for name, each in value.items())
    text = str(value)
    return text if len(text) <= LONG else text[:LONG] + " ..."
