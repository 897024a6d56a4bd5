"""A program of its own: become UID, hold as many keys as it may have, say so, end with its stdin.

`key_holder.py UID ADD_KEY KEYCTL`: the last two are the numbers of the system calls (add_key(2), keyctl(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

KEYCTL_JOIN_SESSION_KEYRING = 1
KEY_SPEC_SESSION_KEYRING = -3


def hold(uid: int, add_key: int, keyctl: int) -> None:
    """Raises OSError for anything else than a quota that is used up."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    failed = libc.syscall(keyctl, KEYCTL_JOIN_SESSION_KEYRING, None) < 0
    count = 0
    while not failed:
        failed = libc.syscall(add_key, b"user", b"oci-harness-%d" % count, b"x", 1, KEY_SPEC_SESSION_KEYRING) < 0
        count += 1
    if ctypes.get_errno() != errno.EDQUOT:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.write(1, b"%d\n" % count)
    sys.stdin.read()


if __name__ == "__main__":
    hold(*map(int, sys.argv[1:]))
