"""Text of Les Houches files that is unusual, large or hostile: accepted where it is harmless, else refused at once."""

from __future__ import annotations

import gzip
import tracemalloc

import numpy as np
import pytest
from test_lhe import HEAD, TAIL, event

from pyrogen import events
from pyrogen.events import lhe_text
from pyrogen.files import FileFormatError


@pytest.fixture(params=["a.lhe", "a.lhe.gz"])
def lhe(request, tmp_path):
    """Writes bytes into a file, plain or gzipped."""

    def write(*texts):
        content = b"".join(text if isinstance(text, bytes) else text.encode() for text in texts)
        path = tmp_path / request.param
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


def test_two_documents_in_one_file_are_refused(lhe, tmp_path):
    """``cat a.lhe b.lhe``, and of zipped files, which are one zipped file too."""
    for n in (1, 2000):  # the second begins in the same block of the parser, and far behind it
        path = lhe(HEAD, event(11) * n, TAIL)
        one = path.read_bytes()
        path.write_bytes(one + one)
        with pytest.raises(FileFormatError, match=r"a\.lhe.* holds several LHE documents.*EventSample\.concatenate"):
            events.read(path)
        path.write_bytes(one + (gzip.compress(b"more") if path.suffix == ".gz" else b"more"))
        with pytest.raises(FileFormatError, match="has text after </LesHouchesEvents>; remove it: 'more'"):
            events.read(path)
    assert len(events.read(lhe(HEAD, event(11), TAIL, "\n # random numbers: 1 2\n\n"))) == 1


def test_what_is_no_xml_and_harmless(lhe):
    """Ampersands, Latin-1, a mark of the byte order, a declaration: the numbers are the same."""
    usual = events.read(lhe(HEAD, event(11), TAIL))
    head = HEAD.replace("# a comment", "define l+ = e+ & mu+ && AT&T; &amp; &#38;")
    for prefix in ("", "\ufeff", '<?xml version="1.0" encoding="ISO-8859-1"?>\n', "\n<?xml version='1.0'?>\n"):
        text = head.replace("by hand", "Müller & Søn").replace("name='toy'", "name='é&b'")
        content = prefix.encode() + text.encode("latin-1")
        sample = events.read(lhe(content, event(11).replace("# 1 2.0 3", "# µ & ν"), TAIL))
        assert sample.values.tobytes() == usual.values.tobytes()
        assert sample.provenance["generators"] == ["é&b 1.2"]


@pytest.mark.parametrize(
    ("before", "inside", "message"),
    [
        ('<?xml version="1.0" encoding="utf-7"?>\n', "", "declares the encoding utf-7; save it as UTF-8"),
        ('<!DOCTYPE a [<!ENTITY a "aaaa">]>\n', "", r"has a document type \(<!DOCTYPE\)"),
        ("", "\0" * 100, "has zero bytes"),
        ("", "&a;", "event 1 .* is malformed"),
        ("", "<a/>" * 300_000, "has a header or an event with more than 262,144 tags"),
        ("", "# x\n" * 2_200_000, "has a header or an event of more than 8,388,608 bytes"),
        ("", " " * 9_000_000, "has a line of more than 8,388,608 bytes"),
    ],
)
def test_what_is_refused(lhe, before, inside, message):
    path = lhe(before, HEAD, event(11), "<event>\n", inside, event(11).removeprefix("<event>\n"), TAIL)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=rf"a\.lhe.* {message}"):
            events.read(path)
        assert tracemalloc.get_traced_memory()[1] < 4e8
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("unit", ["x", "<a/>\n", "<a>"])
def test_small_files_that_are_large_when_unzipped(tmp_path, unit):
    """A gigabyte of one thing in a file of a megabyte: refused before it is in memory."""
    path = tmp_path / "a.lhe.gz"
    block = gzip.compress(unit.encode() * (2**24 // len(unit)))
    path.write_bytes(gzip.compress(HEAD.encode()) + block * 40)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=r"a\.lhe\.gz "):
            events.read(path)
        assert tracemalloc.get_traced_memory()[1] < 4e8
    finally:
        tracemalloc.stop()


def test_headers_that_are_no_tree(lhe):
    """Python's own limits have names of files too."""
    deep = HEAD.replace("# a comment", "<a>" * 5000 + "</a>" * 5000)
    with pytest.raises(FileFormatError, match=r"a\.lhe.* does not begin like an LHE file .*recursion"):
        events.read(lhe(deep, event(11), TAIL))
    with pytest.raises(FileFormatError, match="its <init> block announces 1000000000 processes and has 2"):
        events.read(lhe(HEAD.replace("-4 2\n", "-4 1000000000\n"), event(11), TAIL))
    with pytest.raises(FileFormatError, match="event 0 .* announces 1000000000 particles and has 4"):
        events.read(lhe(HEAD, event(11, announced=1_000_000_000), TAIL))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_blocks_of_any_size(lhe, monkeypatch, size):
    path = lhe(HEAD.replace("comment", "comment & é"), event(11) * 5, TAIL, "# the end")
    whole = events.read(path)
    monkeypatch.setattr(lhe_text, "_AT_ONCE", size)
    assert events.read(path).values.tobytes() == whole.values.tobytes()


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused_by_name(tmp_path, zipped):
    """Bytes, zeros and cuts anywhere: an error with the name of the file, and of a zipped file never another sample."""
    path, rng = tmp_path / ("a.lhe.gz" if zipped else "a.lhe"), np.random.default_rng(4)
    content = (HEAD + event(11, -11) * 60 + TAIL).encode()
    content = gzip.compress(content, mtime=0) if zipped else content
    path.write_bytes(content)
    whole = events.read(path)
    for _ in range(60):
        damaged, start = bytearray(content), int(rng.integers(len(content)))
        size = int(rng.choice([1, 1, 4, 100]))
        damaged[start : start + size] = rng.choice([bytes(size), b"\xff" * size, rng.bytes(size), b"", b"9" * size])
        path.write_bytes(damaged)
        try:
            again = events.read(path)
        except (FileFormatError, ValueError) as error:
            assert str(path) in str(error)
            continue
        assert not zipped or (again.values.tobytes() == whole.values.tobytes() and again.provenance == whole.provenance)
