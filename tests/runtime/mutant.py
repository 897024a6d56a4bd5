"""A broken runtime: a wrapper around a real one that breaks one thing, and nothing else. Standard library only.

    mutant.py MUTATION RUNTIME ARGUMENT...

    /pointer            what is there is taken out of config.json before create, or what INSTEAD says is put there
    add:/pointer        something is added there that was not asked for (ADDED)
    other:/pointer      another value is put there
    random:/pointer     a value that is another one each time
    reverse:/pointer    a list is turned round
    hide:/path          what the runtime makes at that path in the container is hidden
    refuse:/pointer     a config.json that has it is refused; refuse:!/pointer: one that does not
    accept:VERB         the verb exits with 0, whatever came of it
    ignore:VERB         the verb does nothing, and exits with 0
    early:create        create starts the container as well
    leak:create         the container's process gets one descriptor more
    again:start         start makes the container anew, from the config.json of now
    other:kill          kill sends another signal
    state:KEY           state leaves KEY out

A pointer is a JSON pointer (RFC 6901), where a list's place may be a number, `=TEXT` (each such string) or `KEY=TEXT`
(each object that has it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What stands for "ignored" where config.json is not valid without the field, or the runtime refuses it without.
INSTEAD: dict[str, Any] = {
    "/process/cwd": "/",
    "/process/user/uid": 0,
    "/process/user/gid": 0,
    "/root/path": "rootfs",
    "/ociVersion": "1.0.2",
    "/linux/uidMappings": [{"containerID": 0, "hostID": 300000, "size": 3000}],
    "/linux/gidMappings": [{"containerID": 0, "hostID": 300000, "size": 3000}],
    "/linux/seccomp/defaultAction": "SCMP_ACT_ALLOW",
    "/mounts/destination=~1m~1a/type": "ramfs",
    "/linux/resources/devices/1/access": "rw",
    "/linux/devices/type=c/uid": 0,
    "/linux/devices/type=c/gid": 0,
}
ADDED: dict[str, Any] = {
    "/process": {"user": {"uid": 0, "gid": 0}, "args": ["/payload", "pause"], "cwd": "/"},
    "/process/args/0": "/payload",
    "/root/readonly": True,
    "/process/oomScoreAdj": 777,
    "/process/user/umask": 0o111,
    "/process/user/additionalGids": [4321],
}
OTHER: dict[str, Any] = {
    "bind": "rbind",
    "rbind": "bind",
    "shared": "private",
    "private": "shared",
    "slave": "private",
    "unbindable": "private",
    "rshared": "rprivate",
    "rprivate": "rshared",
    "rslave": "rprivate",
    "runbindable": "rprivate",
}


def tokens(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def places(value: Any, path: list[str]) -> Iterator[tuple[Any, Any]]:
    """(container, key) of each place that the tokens lead to; the last one of a list from its end, to be removed."""
    token, rest = path[0], path[1:]
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = [token] if token in value else []
    elif isinstance(value, list):
        keys = [index for index, each in enumerate(value) if selected(token, index, each)][::-1]
    for key in keys:
        if rest:
            yield from places(value[key], rest)
        else:
            yield value, key


def selected(token: str, index: int, value: Any) -> bool:
    if token.isdigit():
        return int(token) == index
    name, _, text = token.partition("=")
    return value == text if not name else isinstance(value, dict) and str(value.get(name)) == text


def add(document: Any, pointer: str) -> None:
    path = tokens(pointer)
    for token in path[:-1]:
        document = document.setdefault(token, {})
    name, equals, text = path[-1].partition("=")
    if isinstance(document, list):
        document.append({name: text} if equals else ADDED[pointer])
    else:
        document.setdefault(path[-1], ADDED.get(pointer))


def edit(document: dict[str, Any], mutation: str) -> None:
    """Break the config.json of a container."""
    how, _, pointer = mutation.partition(":") if not mutation.startswith("/") else ("", "", mutation)
    if how == "add":
        add(document, pointer)
    elif how == "hide":
        # what masks a file is itself the null device
        where = "/dev" if pointer == "/dev/null" else pointer
        document["linux"]["maskedPaths"] = [*document["linux"].get("maskedPaths", []), where]
    elif how in ("", "other", "random", "reverse") and pointer.startswith("/"):
        for holder, key in list(places(document, tokens(pointer))):
            if how == "" and pointer not in INSTEAD:
                del holder[key]
            elif how == "":
                holder[key] = INSTEAD[pointer]
            elif how == "reverse":
                holder[key] = holder[key][::-1]
            elif how == "random":
                holder[key] = f"{holder[key]}-{os.getpid()}"
            else:
                holder[key] = OTHER.get(holder[key], f"{holder[key]}-other")


def has(document: dict[str, Any], pointer: str) -> bool:
    return bool(list(places(document, tokens(pointer))))


def main(mutation: str, runtime: str, arguments: list[str]) -> int:
    how, _, what = mutation.partition(":") if not mutation.startswith("/") else ("", "", mutation)
    verbs = [word for word in arguments if word in ("create", "start", "state", "kill", "delete")]
    verb = verbs[0] if verbs else ""
    at = arguments.index(verb) if verb else 0
    argv = [runtime, *arguments]
    if verb == "create":
        file = Path(arguments[arguments.index("--bundle") + 1], "config.json")
        if file.exists():
            document = json.loads(file.read_text())
            if how == "refuse" and has(document, what.removeprefix("!")) is not what.startswith("!"):
                sys.stderr.write(f"refused for {what}\n")
                return 1
            edit(document, mutation)
            file.write_text(json.dumps(document))
        if mutation == "leak:create":
            argv[at + 2 : at + 2] = ["--preserve-fds", "1"]
            os.dup2(1, 3)
    if how == "ignore" and what == verb:
        return 0
    if mutation == "other:kill" and verb == "kill":
        argv[-1] = "SIGTERM" if argv[-1] != "SIGTERM" else "SIGINT"
    if mutation == "again:start" and verb == "start":
        again(runtime, arguments[:at], arguments[-1])
    if mutation == "early:create" and verb == "create" and arguments[-1] != "--bundle":
        status = subprocess.call(argv)
        return status or subprocess.call([runtime, *arguments[:at], "start", arguments[-1]])
    if how == "accept" and what == verb:
        subprocess.call(argv)
        return 0
    if how == "state" and verb == "state":
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=False)
        if done.returncode == 0:
            state = json.loads(done.stdout)
            state.pop(what, None)
            sys.stdout.write(json.dumps(state))
        return done.returncode
    return os.execv(runtime, argv)


def again(runtime: str, options: list[str], container_id: str) -> None:
    """Take the container away and make it anew, with the same id and pid file."""
    state = subprocess.run([runtime, *options, "state", container_id], stdout=subprocess.PIPE, check=True)
    bundle = json.loads(state.stdout)["bundle"]
    subprocess.run([runtime, *options, "delete", "--force", container_id], check=True)
    subprocess.run([runtime, *options, "create", "--bundle", bundle, container_id], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
