"""The text of Les Houches files as an XML parser can take it: one document, of bounded pieces, in UTF-8."""

from __future__ import annotations

import contextlib
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

from ..files import FileFormatError

LARGEST = 2**23  # bytes of a header, of the text of an event, and of a line
MOST_TAGS = 2**18  # in a header or an event: a parser takes a hundred bytes and more for each
_AT_ONCE = 2**18

_ENDS = re.compile(rb"</(?:event|init|header)\s*>")
_ROOT, _DOCUMENT_TYPE, _END = b"<LesHouchesEvents", b"<!DOCTYPE", re.compile(rb"</LesHouchesEvents\s*>")
_DECLARATION = re.compile(rb"\A\s*<\?xml\b([^>]*)\?>")
_ENCODING = re.compile(rb"""encoding\s*=\s*["']([^"']*)["']""")
_ENCODINGS = ("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1")
_BARE_AMPERSAND = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-fA-F]{1,6});)")


class LheText:
    """A binary stream of the first document in a file, without what is harmless but no XML.

    Ampersands that stand for themselves are written ``&amp;``, and lines that are not UTF-8 are taken for Latin-1.

    Args:
        path: the file, for errors.
        stream: its content, unzipped.

    Raises:
        FileFormatError: from :meth:`read` and :meth:`finish`: a line, header or event that is too large, a document
            type (which may define text that grows without limit), an encoding that is not known, bytes of zero.
    """

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path, self._stream = path, stream
        self._begun = self._rooted = self._ended = False
        self._unfinished = b""  # of a line
        self._open = self._tags = 0  # bytes and tags since the last header, init block or event was closed

    def __enter__(self) -> LheText:
        return self

    def __exit__(self, *_: object) -> None:
        """pylhe closes what it reads; the rest of the file is still to be looked at."""

    def read(self, size: int = -1) -> bytes:
        """Some bytes of whole lines, more or fewer than ``size``; none at the end of the document."""
        while not self._ended:
            lines = self._lines()
            if lines is None:
                return b""
            if lines:
                return self._parsable(lines)
        return b""

    def finish(self) -> None:
        """Look at what stands behind the document, up to the end of the file.

        Raises:
            FileFormatError: another document, or anything but empty lines and lines that begin with #.
        """
        while (lines := self._lines()) is not None:
            self._check_rest(lines)

    def _lines(self) -> bytes | None:
        """The next whole lines; none yet: empty; None at the end of the file."""
        new = self._stream.read(_AT_ONCE)
        if not new:
            lines, self._unfinished = self._unfinished, b""
            return lines or None
        cut = new.rfind(b"\n") + 1
        lines = self._unfinished + new[:cut] if cut else b""
        self._unfinished = new[cut:] if cut else self._unfinished + new
        if len(self._unfinished) > LARGEST:
            self._refuse(f"has a line of more than {LARGEST:,} bytes")
        return lines

    def _parsable(self, lines: bytes) -> bytes:
        if b"\0" in lines:
            self._refuse("has zero bytes, so it is no text; copy or make it again")
        if not self._begun:
            self._begun, lines = True, self._without_declaration(lines)
        if not self._rooted:
            before, root, _ = lines.partition(_ROOT)
            self._rooted = bool(root)
            if _DOCUMENT_TYPE in before:
                self._refuse(f"has a document type ({_DOCUMENT_TYPE.decode()}), which no LHE file needs; remove it")
        end = _END.search(lines)
        if end:
            self._ended = True
            self._check_rest(lines[end.end() :])
            lines = lines[: end.end()]
        self._count(lines)
        return _BARE_AMPERSAND.sub(b"&amp;", _in_utf8(lines))

    def _without_declaration(self, lines: bytes) -> bytes:
        lines = lines.removeprefix(b"\xef\xbb\xbf")
        declaration = _DECLARATION.match(lines)
        if not declaration:
            return lines
        named = _ENCODING.search(declaration[1])
        encoding = named[1].decode("latin-1") if named else "utf-8"
        if encoding.lower() not in _ENCODINGS:
            self._refuse(f"declares the encoding {encoding}; save it as UTF-8")
        return lines[declaration.end() :]

    def _count(self, lines: bytes) -> None:
        """Refuse a header or an event that would take much memory."""
        closed = [found.end() for found in _ENDS.finditer(lines)]
        for start, stop in zip([0, *closed], [*closed, len(lines)], strict=True):
            self._open += stop - start
            self._tags += lines.count(b"<", start, stop)
            if self._open > LARGEST:
                self._refuse(f"has a header or an event of more than {LARGEST:,} bytes")
            if self._tags > MOST_TAGS:
                self._refuse(f"has a header or an event with more than {MOST_TAGS:,} tags")
            if stop in closed:
                self._open = self._tags = 0

    def _check_rest(self, lines: bytes) -> None:
        if _ROOT in lines:
            self._refuse(
                "holds several LHE documents; write each into a file of its own, read these, and put the samples "
                "together with EventSample.concatenate"
            )
        for line in lines.splitlines():
            if line.strip() and not line.lstrip().startswith(b"#"):
                self._refuse(f"has text after </LesHouchesEvents>; remove it: {line[:60].decode('latin-1')!r}")

    def _refuse(self, reason: str) -> NoReturn:
        raise FileFormatError(f"{self._path} {reason}")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[LheText]:
    """The text of a file, plain or zipped whatever its name says."""
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped:
            yield LheText(path, raw)
            return
        with gzip.GzipFile(fileobj=raw) as stream:
            yield LheText(path, stream)  # type: ignore[arg-type]


def _in_utf8(lines: bytes) -> bytes:
    try:
        lines.decode()
        return lines
    except UnicodeDecodeError:
        return b"".join(map(_line_in_utf8, lines.splitlines(keepends=True)))


def _line_in_utf8(line: bytes) -> bytes:
    try:
        line.decode()
        return line
    except UnicodeDecodeError:
        return line.decode("latin-1").encode()
