"""The names of error numbers and the words in which Go, glibc, musl and Rust print them."""

from __future__ import annotations

import errno
import os
import re

# errno: what other C libraries and languages say in place of glibc's words.
_OTHERS = {
    "EACCES": ["access denied"],
    "EAGAIN": ["try again"],
    "EBUSY": ["resource busy"],
    "EEXIST": ["already exists"],
    "EIO": ["i/o error"],
    "ELOOP": ["symbolic link loop", "too many symbolic links encountered"],
    "ESTALE": ["stale nfs file handle"],
    "ENOTSUP": ["operation not supported", "not supported", "unsupported operation"],
    "ENOTSUPP": ["errno 524", "unknown error 524", "os error 524"],
    "EMFILE": ["no file descriptors available"],
    "ENOSPC": ["no space left"],
    "ERANGE": ["result not representable", "result too large"],
    "EDOM": ["numerical argument out of domain"],
}
# Those that system calls around a container's start can return. The words of any other are no error number to us.
NAMES = (
    *(
        "E2BIG",
        "EACCES",
        "EAGAIN",
        "EBADF",
        "EBUSY",
        "ECHILD",
        "ECONNREFUSED",
        "ECONNRESET",
        "EDOM",
        "EDQUOT",
        "EEXIST",
    ),
    *("EFAULT", "EFBIG", "EINTR", "EINVAL", "EIO", "EISDIR", "ELOOP", "EMFILE", "EMLINK", "ENAMETOOLONG", "ENFILE"),
    *(
        "ENODEV",
        "ENOENT",
        "ENOEXEC",
        "ENOLCK",
        "ENOMEM",
        "ENOSPC",
        "ENOSYS",
        "ENOTBLK",
        "ENOTCONN",
        "ENOTDIR",
        "ENOTEMPTY",
    ),
    *("ENOTSUP", "ENOTTY", "ENXIO", "EOVERFLOW", "EPERM", "EPIPE", "ERANGE", "EROFS", "ESRCH", "ESTALE", "ETIMEDOUT"),
    *("ETXTBSY", "EUSERS", "EXDEV", "EKEYREJECTED", "ENOKEY", "EADDRINUSE", "EHOSTUNREACH", "EUCLEAN", "ENODATA"),
    *("ENOBUFS", "EPROTO", "EPROTONOSUPPORT", "EAFNOSUPPORT", "ENOPROTOOPT", "ECANCELED", "ESHUTDOWN", "EBADMSG"),
    *("ELIBBAD", "ELIBACC", "EKEYEXPIRED", "EKEYREVOKED", "ENOTSUPP"),
)


def _words(name: str) -> list[str]:
    number = getattr(errno, name, None)  # ENOTSUPP (524) is the kernel's own and has no name in C
    own = [] if number is None else [os.strerror(number).lower()]
    return [*own, *_OTHERS.get(name, [])]


WORDS = {name: _words(name) for name in NAMES}
_BY_WORDS = {words: name for name, all_words in WORDS.items() for words in all_words}
_BY_NUMBER = {number: name for name in NAMES if (number := getattr(errno, name, None)) is not None} | {524: "ENOTSUPP"}
SPOKEN = tuple(sorted(_BY_WORDS))
LONGEST = max(map(len, SPOKEN)) + 2


def pattern(names: tuple[str, ...] = NAMES) -> str:
    """A regular expression without groups for any of these errors' words, in lower case."""
    words = sorted({each for name in names for each in WORDS[name]}, key=len, reverse=True)
    numbers = "|".join(str(number) for number, name in _BY_NUMBER.items() if name in names)
    whole = "|".join(re.escape(each) for each in words)
    symbols = "|".join(name.lower() for name in names if name != "EROFS")  # a file system is called so, too
    symbolic = rf"|\b(?:{symbols})\b" if symbols else ""
    return rf"(?:{whole}|(?:os error|errno:?|error code|errno=) ?(?:{numbers})\b{symbolic})"


def spellings(names: tuple[str, ...]) -> list[str]:
    """Literal texts of which one is in every text that `pattern` finds, in lower case."""
    words = [each for name in names for each in WORDS[name]]
    return [*words, *(name.lower() for name in names), "os error", "errno", "error code"]


def name_of(words: str) -> str | None:
    """The name of the error that the words stand for: "permission denied", "os error 13", "EACCES", also cut short."""
    low = words.lower().strip(" .…")
    if low in _BY_WORDS:
        return _BY_WORDS[low]
    if low.upper() in WORDS:
        return low.upper()
    number = re.search(r"\d+$", low)
    if number:
        return _BY_NUMBER.get(int(number[0]))
    return next((name for each, name in _BY_WORDS.items() if len(low) > 5 and each.startswith(low)), None)
