"""Layers are looked through before anything is unpacked: hostile ones are refused, honest ones are not."""

from __future__ import annotations

import gzip
import io
import random
import tarfile

import images
import pytest
from images import HOSTILE, Hostile, directory, entry, hard_link, symlink, tar

from harness.errors import InputError
from harness.oci.layers import Node, Tree
from harness.oci.tarball import Budget, Limits, read_entries

LIMITS = Limits(size_bytes=images.BIG, entries=2000)


def look_through(*layers: bytes, limits: Limits = LIMITS) -> Tree:
    tree, budget = Tree(), Budget(limits)
    for number, layer in enumerate(layers, 1):
        try:
            tree.add_layer(io.BytesIO(layer), budget)
        except InputError as error:
            raise InputError(f"layer {number}: {error}") from None
    return tree


def listed(node: Node, prefix: str = "") -> list[str]:
    """Every path of the tree; directories end with /, links tell where they point."""
    if node.target is not None:
        return [f"{prefix} -> {node.target}"]
    if node.children is None:
        return [prefix]
    below = [line for name, child in sorted(node.children.items()) for line in listed(child, f"{prefix}/{name}")]
    return [f"{prefix}/", *below]


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_what_is_hostile_is_refused(hostile: Hostile) -> None:
    """Each kind of hostile layer gives one line that names what is wrong."""
    with pytest.raises(InputError) as caught:
        look_through(*hostile.layers)
    assert hostile.says in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


HONEST = {
    "plain": ((tar(directory("./"), directory("./bin/"), entry("./bin/sh", data=b"x")),), ["/", "/bin/", "/bin/sh"]),
    "gzip": ((gzip.compress(tar(entry("a"))),), ["/", "/a"]),
    "gnu-format": ((tar(entry("d/" * 60 + "a"), format=tarfile.GNU_FORMAT),), None),
    "pax-names": ((tar(entry("ä" * 100)),), ["/", "/" + "ä" * 100]),
    "no-parents-named": ((tar(entry("a/b/c")),), ["/", "/a/", "/a/b/", "/a/b/c"]),
    "a-directory-twice": ((tar(directory("a"), entry("a/b"), directory("a")),), ["/", "/a/", "/a/b"]),
    "hard-link": ((tar(entry("a"), hard_link("b", "a")),), ["/", "/a", "/b"]),
    "hard-link-to-symlink": ((tar(symlink("a", "x"), hard_link("b", "./a")),), ["/", "/a -> x", "/b -> x"]),
    "symlinks-anywhere": (
        (tar(symlink("etc/mtab", "/proc/mounts"), symlink("up", "../../..")),),
        ["/", "/etc/", "/etc/mtab -> /proc/mounts", "/up -> ../../.."],
    ),
    "merged-usr": (
        (tar(directory("usr/bin"), symlink("bin", "usr/bin")), tar(entry("bin/tool"))),
        ["/", "/bin -> usr/bin", "/usr/", "/usr/bin/", "/usr/bin/tool"],
    ),
    "symlink-by-two-steps": (
        (tar(directory("a/x"), symlink("b", "a"), symlink("c", "b/x"), entry("c/f")),),
        ["/", "/a/", "/a/x/", "/a/x/f", "/b -> a", "/c -> b/x"],
    ),
    "symlink-replaced-by-directory": (
        (tar(symlink("a", "/etc")), tar(directory("a"), entry("a/f"))),
        ["/", "/a/", "/a/f"],
    ),
    "directory-replaced-by-file": ((tar(entry("a/b")), tar(entry("a"))), ["/", "/a"]),
    "whiteout": ((tar(entry("a/b"), entry("a/c")), tar(entry("a/.wh.b"))), ["/", "/a/", "/a/c"]),
    "whiteout-of-a-directory": ((tar(entry("a/b/c")), tar(entry("a/.wh.b"))), ["/", "/a/"]),
    "whiteout-spares-its-own-layer": (
        (tar(entry("a/b/old")), tar(entry("a/b/new"), entry("a/.wh.b"))),
        ["/", "/a/", "/a/b/", "/a/b/new"],
    ),
    "opaque": ((tar(entry("a/b"), entry("a/c")), tar(entry("a/new"), entry("a/.wh..wh..opq"))), ["/", "/a/", "/a/new"]),
    "whiteout-of-what-is-not-there": ((tar(entry("a/.wh.b")),), ["/", "/a/"]),
    "fifo": ((tar(entry("pipe", tarfile.FIFOTYPE)),), ["/", "/pipe"]),
    "empty": ((tar(),), ["/"]),
    "padded": ((tar(entry("a")) + bytes(100_000),), ["/", "/a"]),
    "no-end-as-umoci-writes-it": ((tar(entry("a"), entry("b", data=b"x" * 700))[: 2 * 512 + 700],), ["/", "/a", "/b"]),
    "set-id-bits": ((tar(entry("su", mode=0o4755)),), ["/", "/su"]),
    "comment-of-git": ((tar(images.pax("a", comment="0123abcd")),), ["/", "/a"]),
}


@pytest.mark.parametrize(("layers", "paths"), HONEST.values(), ids=HONEST)
def test_what_is_honest_passes(layers: tuple[bytes, ...], paths: list[str] | None) -> None:
    """What image builders write is let through, and the model has what unpacking would give."""
    tree = look_through(*layers)
    if paths is not None:
        assert listed(tree.root) == ["/", *(paths[1:])]


def test_data_can_be_read_beside_the_headers() -> None:
    """The reader hands out an entry's data when asked, and skips it when not."""
    layer = tar(entry("a", data=b"one"), entry("b", data=bytes(2000)), entry("c", data=b"three" * 200))
    found = {made.name: data() for made, data in read_entries(io.BytesIO(layer), Budget(LIMITS)) if made.name != "b"}
    assert found == {"a": b"one", "c": b"three" * 200}


def test_limits_hold_for_all_layers_together() -> None:
    """Neither size nor number begins anew with each layer."""
    layer = tar(entry("a", data=bytes(20_000)))
    with pytest.raises(InputError, match="layer 2: it unpacks to more than"):
        look_through(layer, layer, limits=Limits(40_000, 10))
    with pytest.raises(InputError, match="layer 3: it has more than 2 entries"):
        look_through(layer, layer, layer, limits=Limits(10**9, 2))


def test_a_damaged_layer_never_gives_another_error() -> None:
    """Whatever bytes are flipped: the layer passes or is refused with an InputError, and names stay printable."""
    layer = bytearray(
        tar(directory("a"), entry("a/b", data=b"x" * 700), symlink("c", "a"), images.pax("d", path="e" * 200))
    )
    chance = random.Random(1)
    said = [line for line in (_refusal(layer, chance) for _ in range(3000)) if line is not None]
    assert len(said) > 300
    assert [ascii(line) for line in said if not line.isprintable()] == []


def _refusal(layer: bytearray, chance: random.Random) -> str | None:
    spoiled = bytearray(layer)
    for _ in range(chance.randrange(1, 4)):
        spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
    try:
        look_through(bytes(spoiled))
    except InputError as error:
        return str(error)
    return None
