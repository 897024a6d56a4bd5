"""Use up the keys that a user may have (keyrings(7)): a child of ours, key_holder.py, holds them all."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HostError
from harness.faults import schema
from harness.kernel import shim

if TYPE_CHECKING:
    from harness.faults.node import Node

KEY_HOLDER = str(Path(__file__).with_name("key_holder.py"))
COLLECTED_S = 15.0  # the kernel collects the keys of a dead process after an RCU grace period, a lazy one at worst
FEW = 10  # of the maximum of 200: what a container that has just ended may still have


def use_up(node: Node, step: schema.KeyQuota) -> None:
    """Raises HostError when the child cannot hold all keys, or `uid` is somebody."""
    uid = step.uid
    with contextlib.suppress(KeyError):
        raise HostError(f"uid {uid} is {pwd.getpwuid(uid).pw_name}; this is done to a user that nobody is")
    if held(uid) > FEW:
        raise HostError(f"uid {uid} has keys already; this is done to a user that nobody else is")
    numbers = [str(shim.syscall_number(name)) for name in ("add_key", "keyctl")]
    stdin, ours = os.pipe2(os.O_CLOEXEC)
    node.undo.callback(_until_free, uid)
    node.undo.callback(os.close, ours)  # the child ends with its stdin
    answer, stdout = os.pipe2(os.O_CLOEXEC)
    try:
        node.child(sys.executable, "-I", KEY_HOLDER, str(uid), *numbers, stdin=stdin, stdout=stdout)
    finally:
        os.close(stdin)
        os.close(stdout)
    try:
        if not os.read(answer, 64):
            raise HostError(f"the keys of uid {uid} could not be used up")
    finally:
        os.close(answer)
    node.done.append(f"a process of uid {uid} holds all the keys that it may have (/proc/key-users)")


def held(uid: int) -> int:
    """How many keys count against a user's quota now."""
    # `UID: USAGE NKEYS/NIKEYS QNKEYS/MAXKEYS QNBYTES/MAXBYTES`, keyrings(7)
    for line in Path("/proc/key-users").read_text().splitlines():
        user, _, rest = line.partition(":")
        if user.strip() == str(uid):
            return int(rest.split()[2].partition("/")[0])
    return 0


def _until_free(uid: int) -> None:
    """Raises TimeoutError."""
    deadline = time.monotonic() + COLLECTED_S
    while held(uid) > FEW:
        if time.monotonic() > deadline:
            raise TimeoutError(f"uid {uid} still has {held(uid)} keys")
        time.sleep(0.005)
