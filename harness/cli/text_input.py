"""Text that a command is given: a file, standard input, or the text itself as the argument."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path
from typing import IO

from harness.errors import InputError


def open_text(source: str) -> IO[str]:
    """A stream of `source`: a file's path, - for standard input, or a text of more than one word.

    Bytes that are no UTF-8 become U+FFFD, never an error. Raises InputError.
    """
    if source == "-":
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace", newline="\n")
    path = Path(source)
    try:
        if path.is_file() or path.is_fifo() or path.is_char_device():
            return path.open(encoding="utf-8", errors="replace", newline="\n")
        if path.is_dir():
            raise InputError(f"{source}: is a directory; give a file, - or the message itself")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise InputError(f"{source}: cannot be read: {error.strerror}") from None
    except ValueError:
        pass  # a NUL: a message then
    if not any(blank in source.strip() for blank in " \n\t"):
        raise InputError(f"{source}: no such file; a message given as an argument has more than one word")
    return io.StringIO(source.encode(errors="replace").decode(), newline="\n")
