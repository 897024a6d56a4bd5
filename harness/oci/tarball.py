"""Read the entries of a tar that nobody vouches for: forward only, within limits, and only in plain forms.

Whatever readers of tar take differently is refused, so that what is judged here is what gets unpacked later.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO

from msgspec import Struct

from harness.errors import InputError
from harness.units import format_bytes

CHUNK_BYTES = 1024 * 1024
EXTENDED_HEADER_BYTES = 1024 * 1024  # tarfile reads one whole into memory
PATH_BYTES = 4096  # limits.h PATH_MAX
ID_END = 2**32 - 1  # (uid_t)-1 is no id

COMPRESSIONS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"\x1f\x9d": "compress"}
GZIP = b"\x1f\x8b"


class Limits(Struct, frozen=True):
    """How much an archive or all layers of an image may hold."""

    size_bytes: int = 16 * 1024**3
    entries: int = 1_000_000


class Budget:
    """What is left of the limits; shared by all layers of one image."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.size_bytes = 0
        self.entries = 0

    def spend(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self.check(0)

    def check(self, size_bytes: int) -> None:
        """Raises InputError when `size_bytes` more would be too many."""
        if self.size_bytes + size_bytes > self.limits.size_bytes:
            limit = format_bytes(self.limits.size_bytes)
            raise InputError(f"it unpacks to more than {limit}; raise --max-size if that is meant")

    def count(self) -> None:
        self.entries += 1
        if self.entries > self.limits.entries:
            raise InputError(f"it has more than {self.limits.entries} entries; raise --max-entries if that is meant")


class Forward:
    """A stream as the file that tarfile wants: it only goes forward, and counts what it reads."""

    def __init__(self, stream: IO[bytes], budget: Budget) -> None:
        self._stream = stream
        self._budget = budget
        self._position = 0
        self._last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if size > EXTENDED_HEADER_BYTES:
            raise InputError(f"an extended header of {format_bytes(size)}; none is that large")
        return self._take(size)

    def seek(self, position: int) -> None:
        if position < self._position:
            raise InputError("its headers lead backwards, so it is damaged")
        self._budget.check(position - self._position)
        while self._position < position:
            if not self._take(min(CHUNK_BYTES, position - self._position)):
                raise InputError("it is cut short")

    def skip_padding(self) -> bool:
        """To the next block; whether there is one, or the file ends here."""
        wanted = -self._position % tarfile.BLOCKSIZE
        return len(self._take(wanted)) == wanted

    def _take(self, size: int) -> bytes:
        self._last = data = self._stream.read(size)
        self._position += len(data)
        self._budget.spend(len(data))
        return data

    def check_end(self) -> None:
        """The end is a block of zeros or that of the file, and only zeros follow: else readers see different things."""
        if self._last.strip(b"\0"):
            raise InputError("damaged, or cut short in the middle of a header")
        while data := self._take(CHUNK_BYTES):
            if data.strip(b"\0"):
                raise InputError("there is something behind its end mark, or it is damaged in the middle")


def decompressed(file: IO[bytes]) -> IO[bytes]:
    """The tar in a file that may be compressed with gzip. Raises InputError for any other compression."""
    magic = file.read(6)
    file.seek(0)
    for known, name in COMPRESSIONS.items():
        if magic.startswith(known):
            raise InputError(f"compressed with {name}; only gzip is unpacked here, so convert it first (skopeo, gzip)")
    return gzip.GzipFile(fileobj=file, mode="rb") if magic.startswith(GZIP) else file  # type: ignore[return-value]  # typeshed: GzipFile is no IO[bytes]


def read_entries(file: IO[bytes], budget: Budget) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """All entries of a tar, gzipped or not, checked for form but not for meaning.

    With each comes a function that reads its data (up to 1 MiB), to be called before the next entry. Memory use does
    not depend on what is in the tar. Raises InputError: damaged, cut short, another compression, too large, too many,
    sparse, odd headers.
    """
    try:
        forward = Forward(decompressed(file), budget)
        tar = tarfile.TarFile(fileobj=forward, mode="r", errorlevel=2, encoding="utf-8")  # type: ignore[arg-type]  # it needs no more than Forward has
        while (entry := tar.next()) is not None:
            budget.count()
            _check_form(entry, tar.pax_headers)
            budget.check(entry.size)
            yield entry, partial(forward.read, entry.size)
            forward.seek(entry.offset_data + entry.size)
            if not forward.skip_padding():
                return  # umoci insert ends right behind the last data
            tar.members.clear()  # type: ignore[attr-defined]  # not in typeshed; else it keeps them all
        forward.check_end()
    except (tarfile.TarError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise InputError(f"damaged: {error or type(error).__name__}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"damaged: {error}") from None


def _check_form(entry: tarfile.TarInfo, global_headers: object) -> None:
    if set(global_headers if isinstance(global_headers, dict) else ()) - {"comment"}:
        raise InputError("global extended headers, which readers take differently")
    for what, text in (("name", entry.name), ("link", entry.linkname)):
        if any(character < " " or character == "\x7f" for character in text):
            raise InputError(f"{shown(entry)}: its {what} has a control character (a NUL, a line break)")
        if len(text.encode(errors="surrogateescape")) > PATH_BYTES:
            raise InputError(f"{shown(entry)}: its {what} is longer than {PATH_BYTES} bytes")
    if entry.size < 0 or (entry.size and not entry.isreg()):
        raise InputError(f"{shown(entry)}: a size of {entry.size} cannot be")
    if entry.issparse() or any(key.startswith("GNU.sparse") for key in entry.pax_headers):
        raise InputError(f"{shown(entry)}: a sparse file; image layers have none")
    if not 0 <= entry.uid < ID_END or not 0 <= entry.gid < ID_END:
        raise InputError(f"{shown(entry)}: owner {entry.uid}:{entry.gid} cannot be")


def shown(entry: tarfile.TarInfo) -> str:
    """The entry's name for a message: on one line, not too long."""
    text = ascii(entry.name)
    return text if len(text) <= 100 else text[:97] + "...'"
