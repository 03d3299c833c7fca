"""A format is one class: one that is defined here alone is read, written and refused like those of pyrogen."""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

from pyrogen import events
from pyrogen.checks import require
from pyrogen.events import EventSample, EventWriter, Format, PartWriter, format
from pyrogen.events.tables import from_columns, part, to_columns
from pyrogen.files import FileFormatError

FOLDER = Path(events.__file__).parent


@pytest.fixture
def registry(monkeypatch):
    """The table of formats, for this test alone."""
    monkeypatch.setattr(format, "_FORMATS", dict(format._FORMATS))
    return format._FORMATS


@pytest.fixture
def own(registry):
    """A new format: text with one event a line, the values separated by a character of choice."""

    @dataclass(frozen=True)
    class Options:
        delimiter: str = ","

        def __post_init__(self) -> None:
            require(len(self.delimiter) == 1, "delimiter", self.delimiter, "one character")

    class Writer(PartWriter):
        def __init__(self, temporary: Path, first: EventSample, options: Options) -> None:
            self.stream = open(temporary, "w", newline="")  # noqa: SIM115 (closed in close)
            self.lines = csv.writer(self.stream, delimiter=options.delimiter)
            self.lines.writerow(to_columns(first))

        def write(self, sample: EventSample) -> None:
            self.lines.writerows(np.column_stack(list(to_columns(sample).values())).tolist())

        def close(self) -> None:
            self.stream.close()

    class Csv(Format, suffixes=(".csv",)):
        label = "CSV"
        reading = writing = Options
        keeps = ("weights", "uncertainties")

        def parts(self, chunk: int, columns: tuple[str, ...] | None, options: Options) -> Iterator[EventSample]:
            with open(self.path, newline="") as stream:
                names, *lines = csv.reader(stream, delimiter=options.delimiter)
            table = np.array(lines, dtype=float)
            for first in range(0, len(table), chunk):
                content = from_columns(dict(zip(names, table[first : first + chunk].T, strict=True)))
                yield part(self.path, first, columns, content)

        def writer(self, temporary: Path, first: EventSample, options: Options) -> PartWriter:
            return Writer(temporary, first, options)

        def finish(self, sample: EventSample) -> EventSample:
            labels = {"provenance": {"lines": len(sample)}}
            return EventSample(sample.values, sample.names, sample.units, sample.weights, **labels)

    return Csv


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    return EventSample(rng.normal(size=(20, 2)), ("a", "b"), weights=rng.uniform(1, 2, size=20))


def assert_same(a: EventSample, b: EventSample) -> None:
    assert a.values.tobytes() == b.values.tobytes() and a.weights.tobytes() == b.weights.tobytes()
    assert a.names == b.names


@pytest.mark.parametrize("options", [{}, {"delimiter": ";"}, {"delimiter": None}])
def test_new_format_is_written_and_read(own, sample, tmp_path, options):
    path = tmp_path / "A.CSV"
    with EventWriter(tmp_path / "parts.csv", **options) as writer:
        for first in range(0, 20, 7):
            writer.write(sample[first : first + 7])
            assert not (tmp_path / "parts.csv").exists()
    for write in (sample.save, lambda *a, **k: events.write(sample, *a, **k)):
        write(path, **options)
        assert path.read_text().startswith(
            f"a{options.get('delimiter') or ','}b{options.get('delimiter') or ','}weight"
        )
        assert path.read_bytes() == (tmp_path / "parts.csv").read_bytes()
        again = events.read(path, **options)
        assert_same(again, sample)
        assert again.provenance == {"lines": 20}
    parts = list(events.stream(path, chunk=7, **options))
    assert [part.part for part in parts] == [0, 7, 14] and parts[0].provenance == {}
    assert_same(EventSample.concatenate(parts), sample)
    assert_same(events.read(path, columns=["b"], **options), sample.select(["b"]))


def test_new_format_is_shown_like_the_others(own, sample, tmp_path, capsys):
    sample.save(tmp_path / "a.csv")
    events.read(tmp_path / "a.csv", progress=True)
    assert "a.csv: 20 events" in capsys.readouterr().err
    events.read(tmp_path / "a.csv")
    assert capsys.readouterr().err == ""


def test_options_are_refused_by_name(own, sample, tmp_path):
    path = tmp_path / "a.csv"
    sample.save(path)
    for arguments, error, message in (
        ({"delimiter": ";;"}, ValueError, "delimiter is ';;'; it must be one character"),
        ({"delimeter": ";"}, TypeError, "no format has an option 'delimeter' of reading; .* CSV files: delimiter"),
        ({"layout": "rows"}, TypeError, "no format has an option 'layout' of reading; .* CSV files: delimiter"),
        ({"missing": "skip"}, ValueError, r"a\.csv is no LHE file; leave out missing='skip'; .* CSV files: delimiter"),
        ({"dataset": "t", "others": "skip"}, ValueError, r"a\.csv is no HDF5, LHE or ROOT file; .*'t', others='skip'"),
    ):
        for read in (events.read, events.stream):
            with pytest.raises(error, match=message):
                read(path, **arguments)
    with pytest.raises(ValueError, match=r"a\.csv is no HDF5 or ROOT file; leave out dataset='tree'"):
        events.read(path, "tree")
    for write in (sample.save, EventWriter):
        with pytest.raises(
            ValueError, match=r"a\.csv is no HDF5 file; leave out layout='rows'; .*writing CSV files: del"
        ):
            write(path, layout="rows")
        with pytest.raises(ValueError, match=r"a\.npy is no CSV file; leave out delimiter=';'|a\.npy part by part"):
            write(tmp_path / "a.npy", delimiter=";")
        with pytest.raises(ValueError, match=r"a\.h5 is no CSV file; leave out delimiter=';'; .* HDF5 files: layout"):
            write(tmp_path / "a.h5", delimiter=";")
    with pytest.raises(ValueError, match=r"a\.csv is no HDF5 file; leave out append=True"):
        events.append(sample, path)
    sample.save(tmp_path / "a.h5", delimiter=",")  # the default of another format asks for nothing
    assert_same(events.read(path), sample)


def test_suffixes_that_are_known(own, registry, sample, tmp_path):
    with pytest.raises(ValueError, match=r"unknown suffix '\.txt'; pyrogen can read \.arrow, \.csv, \.feather, \.h5, "):
        events.read(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"unknown suffix '\.txt'; pyrogen can write \.arrow, \.csv, "):
        sample.save(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"part by part: \.npy has .*; write \.arrow, \.csv, .*\.h5, .* instead"):
        EventWriter(tmp_path / "a.npy")
    del registry[".csv"]
    with pytest.raises(ValueError, match=r"unknown suffix '\.csv'; pyrogen can read \.arrow, \.feather, \.h5, "):
        events.read(tmp_path / "a.csv")
    for suffixes in (".csv", ("csv",), (".CSV",)):
        with pytest.raises(ValueError, match="suffixes is .*; it must be a tuple of suffixes in small letters"):
            type("Csv", (own,), {}, suffixes=suffixes)


def test_format_that_is_only_read(registry, sample, tmp_path):
    class Zeros(Format, suffixes=(".zeros", ".long.h5")):
        label = "zeros"

        def parts(self, chunk: int, columns: tuple[str, ...] | None, options: object) -> Iterator[EventSample]:
            yield part(self.path, 0, columns, {"values": np.zeros((2, 1))})

    (tmp_path / "a.long.h5").touch()
    assert events.read(tmp_path / "a.long.h5").values.tolist() == [[0.0], [0.0]]  # the longest suffix counts
    for write in (sample.save, EventWriter, lambda path: events.append(sample, path)):
        with pytest.raises(ValueError, match=r"cannot write .*: zeros files are only read; pyrogen can write \."):
            write(tmp_path / "a.zeros")


def test_new_format_leaves_the_old_file_and_names_its_own(own, sample, tmp_path):
    path = tmp_path / "a.csv"
    sample.save(path)
    before = path.read_bytes()
    with pytest.raises(KeyError, match="mine"), EventWriter(path) as writer:
        writer.write(sample)
        raise KeyError("mine")
    with pytest.raises(ValueError, match="the sample to write has the names .*, those before has"):  # noqa: SIM117
        with EventWriter(path) as writer:
            writer.write(sample)
            writer.write(sample.select(["b", "a"]))
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.csv"]
    path.write_text("a,b\n1,2\nnan,3\n")
    with pytest.raises(FileFormatError, match=r"a\.csv holds no sample of events: .* row 1, column 0 \(a\): nan"):
        events.read(path)


def test_other_tests_see_no_format_of_this_one():
    known = [".arrow", ".feather", ".h5", ".hdf5", ".json", ".lhe", ".lhe.gz", ".npy", ".parquet", ".root"]
    assert sorted(format._FORMATS) == known


# --- who imports whom -------------------------------------------------------------------------------------


def imports(file: Path) -> set[str]:
    """Files of the folder that one imports, in functions and for types too; ``__init__`` is the face."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, (("", "pyrogen.events", "pyrogen")[node.level], node.module)))
            found |= {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    inside = [f"{name}.".removeprefix("pyrogen.events.") for name in found if f"{name}.".startswith("pyrogen.events.")]
    stems = {name.partition(".")[0] for name in inside}
    return {stem if (FOLDER / f"{stem}.py").exists() else "__init__" for stem in stems}


def test_no_files_import_each_other_in_a_circle_nor_the_face():
    graph = {file.stem: imports(file) for file in FOLDER.glob("*.py")}
    parts = {
        "containers",
        "format",
        "multiplicity",
        "networks",
        "normalisation",
        "presenting",
        "sample_parts",
        "validation",
        "writing",
    }
    assert graph["sample"] == parts
    assert graph["__init__"] >= {"hdf5", "sample"}
    list(TopologicalSorter(graph).static_order())  # raises a CycleError
    assert not any("__init__" in imported for imported in graph.values())


def test_only_the_face_knows_the_formats():
    names = {"hdf5", "lhe", "npy", "root"}
    for file in FOLDER.glob("*.py"):
        if file.stem not in {*names, "__init__"}:
            assert not imports(file) & names, file


def test_what_a_format_does_not_keep_is_refused(own, sample, tmp_path):
    """Nobody who writes a format can forget it: what it does not say that it keeps is refused for it."""
    drawn = EventSample(sample.values, sample.names, weights=sample.weights, log_weights=np.zeros((20, 2)))
    expected = r"cannot write .*a\.csv: CSV would lose the log_weights; write .*\.h5, .* or \.root instead"
    with pytest.raises(ValueError, match=expected):
        events.write(drawn, tmp_path / "a.csv")
    with pytest.raises(ValueError, match=expected), EventWriter(tmp_path / "a.csv") as writer:
        writer.write(drawn)
    own.keeps = ()
    with pytest.raises(ValueError, match="CSV would lose the weights"):
        sample.save(tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())


def test_writing_replaces_and_only_appending_goes_on(sample, tmp_path):
    path = tmp_path / "a.h5"
    events.write(sample, path)
    with pytest.raises(TypeError, match=r"write\(\) replaces the file; EventWriter\(path, append=True\)"):
        events.write(sample, path, append=True)
    with pytest.raises(TypeError, match="replaces the file"):
        sample.save(path, append=True)
    assert len(events.read(path)) == 20
    events.append(sample, path)
    assert len(events.read(path)) == 40
