"""Images for tests, written byte by byte: honest ones, and hostile ones of every kind that unpackers fell for."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.size = len(data)
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(made, field, value)
    return made, data


def directory(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.DIRTYPE)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def tar(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 - tarfile's word
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for made, data in entries:
            archive.addfile(made, io.BytesIO(data))
    return out.getvalue()


def header(made: tarfile.TarInfo) -> bytes:
    """One header by itself, for archives that tarfile would not write."""
    return made.tobuf(tarfile.USTAR_FORMAT)


def claims(name: str, size: int) -> bytes:
    """A header that promises `size` bytes, and then nothing."""
    made = tarfile.TarInfo(name)
    made.size = size
    return made.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def gnu_sparse() -> bytes:
    """An old GNU sparse file: one block of data at the end of a terabyte."""
    made = tarfile.TarInfo("sparse")
    made.type = tarfile.GNUTYPE_SPARSE
    made.size = 512
    block = bytearray(made.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"%011o\0" % (2**33 - 512), b"%011o\0" % 512
    block[483:495] = b"%011o\0" % (2**33 - 1)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512) + bytes(1024)


def pax(name: str, **records: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, pax_headers=records)


def pax_record(name: str, key: str, value: str) -> bytes:
    """An entry whose extended header has a record that tarfile would not write, a NUL say."""
    body = f"{key}={value}\n".encode()
    length = len(body) + 3
    record = f"{length:>2} ".encode() + body
    extended = tarfile.TarInfo("x")
    extended.type = tarfile.XHDTYPE
    extended.size = len(record)
    return header(extended) + record.ljust(512, b"\0") + header(tarfile.TarInfo(name)) + bytes(1024)


def many_extended_headers() -> bytes:
    extended = tarfile.TarInfo("x")
    extended.type = tarfile.XHDTYPE
    return header(extended) * 3000 + header(tarfile.TarInfo("a")) + bytes(1024)


def large_extended_header() -> bytes:
    extended = tarfile.TarInfo("x")
    extended.type = tarfile.XHDTYPE
    extended.size = 4 * 1024 * 1024
    return header(extended) + bytes(extended.size) + header(tarfile.TarInfo("a")) + bytes(1024)


@dataclass(frozen=True)
class Hostile:
    """Layers, and what the refusal must say."""

    layers: tuple[bytes, ...]
    says: str


BIG = 64 * 1024 * 1024  # more than the limit that the tests set
GLOBAL_PATH = {"path": "../../canary"}


def _global_header() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers=GLOBAL_PATH) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return out.getvalue()


HOSTILE: dict[str, Hostile] = {
    "dot-dot": Hostile((tar(entry("../canary", data=b"x")),), "a name with .."),
    "dot-dot-inside": Hostile((tar(directory("a"), entry("a/../../canary", data=b"x")),), "a name with .."),
    "absolute": Hostile((tar(entry("/canary", data=b"x")),), "an absolute name"),
    "through-absolute-symlink": Hostile(
        (tar(symlink("out", "/tmp"), entry("out/canary", data=b"x")),), "its parent 'out' is a symbolic link to '/tmp'"
    ),
    "through-relative-symlink": Hostile(
        (tar(symlink("out", "../.."), entry("out/canary", data=b"x")),),
        "its parent 'out' is a symbolic link to '../..'",
    ),
    "symlink-from-a-lower-layer": Hostile(
        (tar(symlink("etc", "/etc")), tar(entry("etc/canary", data=b"x"))), "layer 2: 'etc/canary': its parent 'etc'"
    ),
    "directory-becomes-symlink": Hostile(
        (tar(directory("d"), entry("d/f")), tar(symlink("d", "../..")), tar(entry("d/canary", data=b"x"))),
        "layer 3: 'd/canary': its parent 'd' is a symbolic link to '../..'",
    ),
    "symlink-chain": Hostile(
        (tar(directory("a"), symlink("a/b", ".."), symlink("c", "a/b/.."), entry("c/canary", data=b"x")),),
        "its parent 'c' is a symbolic link",
    ),
    "symlink-circle": Hostile(
        (tar(symlink("a", "b"), symlink("b", "a"), entry("a/canary")),), "its parent 'a' is a symbolic link"
    ),
    "through-a-file": Hostile((tar(entry("a"), entry("a/canary")),), "its parent 'a' is no directory"),
    "root-becomes-symlink": Hostile((tar(symlink("./", "/tmp")),), "it would replace the root directory"),
    "root-becomes-file": Hostile((tar(entry(".")),), "it would replace the root directory"),
    "hard-link-outside": Hostile((tar(hard_link("a", "../../etc/shadow")),), "a hard link to '../../etc/shadow'"),
    "hard-link-absolute": Hostile((tar(hard_link("a", "/etc/shadow")),), "a hard link to '/etc/shadow', outside"),
    "hard-link-through-symlink": Hostile(
        (tar(symlink("e", "/etc"), hard_link("a", "e/shadow")),), "a hard link to 'e/shadow', which is no file"
    ),
    "hard-link-to-nothing": Hostile((tar(hard_link("a", "b")),), "a hard link to 'b', which is no file of the image"),
    "hard-link-to-directory": Hostile(
        (tar(directory("b"), hard_link("a", "b")),), "a hard link to 'b', which is no file"
    ),
    "block-device": Hostile((tar(entry("sda", tarfile.BLKTYPE, devmajor=8, devminor=0)),), "a device node (8:0)"),
    "character-device": Hostile((tar(entry("mem", tarfile.CHRTYPE, devmajor=1, devminor=1)),), "a device node (1:1)"),
    "overlay-whiteout": Hostile((tar(entry("x", tarfile.CHRTYPE)),), "a device node (0:0)"),
    "unknown-type": Hostile((tar(entry("x", b"Z")),), "an entry of the unknown type"),
    "whiteout-of-the-parent": Hostile((tar(entry(".wh...")),), "a whiteout of nothing that may be removed"),
    "whiteout-of-itself": Hostile((tar(entry(".wh..")),), "a whiteout of nothing that may be removed"),
    "whiteout-of-nothing": Hostile((tar(entry(".wh.")),), "a whiteout of nothing that may be removed"),
    "whiteout-of-a-whiteout": Hostile((tar(entry(".wh..wh.x")),), "a whiteout of nothing that may be removed"),
    "whiteout-below-symlink": Hostile(
        (tar(symlink("out", "/tmp")), tar(entry("out/.wh.canary"))), "its parent 'out' is a symbolic link to '/tmp'"
    ),
    "opaque-below-symlink": Hostile(
        (tar(symlink("out", "../..")), tar(entry("out/.wh..wh..opq"))), "its parent 'out' is a symbolic link to '../..'"
    ),
    "whiteout-as-directory": Hostile((tar(directory(".wh.a"), entry(".wh.a/b")),), "a whiteout that is no plain file"),
    "inside-a-whiteout": Hostile((tar(entry(".wh.a/b")),), "something inside a whiteout"),
    "twice": Hostile((tar(entry("a"), entry("a", data=b"x")),), "it is in this layer twice"),
    "twice-by-another-name": Hostile((tar(entry("a"), entry("./a", data=b"x")),), "it is in this layer twice"),
    "symlink-then-file": Hostile((tar(symlink("a", "/tmp/canary"), entry("a", data=b"x")),), "in this layer twice"),
    "newline": Hostile((tar(entry("a\nb")),), "its name has a control character"),
    "escape-sequence": Hostile((tar(entry("\x1b[2Ja")),), "its name has a control character"),
    "nul": Hostile((pax_record("a", "path", "a\0b"),), "its name has a control character"),
    "nul-in-link": Hostile((pax_record("a", "linkpath", "a\0b"),), "its link has a control character"),
    "long-name": Hostile((tar(entry("a" * 300)),), "a name longer than 255 bytes"),
    "long-path": Hostile((tar(entry("/".join(["a" * 200] * 30))),), "its name is longer than 4096 bytes"),
    "deep": Hostile((tar(directory("d/" * 500)),), "more than 200 directories deep"),
    "sparse": Hostile((gnu_sparse(),), "a sparse file"),
    "sparse-by-pax": Hostile(
        (tar(pax("a", **{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99"})),),
        "damaged",
    ),
    "absurd-size": Hostile((claims("a", 2**62),), "it unpacks to more than"),
    "negative-size": Hostile((tar(pax("a", size="-1")),), "a size of -1 cannot be"),
    "too-large": Hostile((tar(entry("a", data=bytes(BIG + 1))),), "it unpacks to more than 64.0 MiB"),
    "bomb": Hostile((gzip.compress(tar(entry("a", data=bytes(4 * BIG)))),), "it unpacks to more than 64.0 MiB"),
    "bomb-behind-the-end": Hostile((gzip.compress(tar(entry("a")) + bytes(4 * BIG)),), "unpacks to more than 64.0 MiB"),
    "too-many": Hostile((tar(*(entry(f"{number}") for number in range(2001))),), "it has more than 2000 entries"),
    "large-extended-header": Hostile((large_extended_header(),), "an extended header of 4.0 MiB"),
    "many-extended-headers": Hostile((many_extended_headers(),), "damaged"),
    "global-header": Hostile((_global_header(),), "global extended headers"),
    "cut-short": Hostile((tar(entry("a", data=bytes(5000)))[:2000],), "cut short"),
    "cut-in-a-header": Hostile((tar(entry("a"), entry("b"))[:700],), "cut short"),
    "cut-gzip": Hostile((gzip.compress(tar(entry("a", data=bytes(range(256)) * 64)))[:150],), "damaged"),
    "damaged-in-the-middle": Hostile((tar(entry("a"))[:512] + b"\xff" * 512 + bytes(1024),), "damaged"),
    "archive-behind-the-end": Hostile((tar(entry("a")) + tar(entry("../canary")),), "there is something behind"),
    "no-tar": Hostile((b"#!/bin/sh\necho hello\n" * 100,), "damaged"),
    "zstd": Hostile((b"\x28\xb5\x2f\xfd" + bytes(600),), "compressed with zstd; only gzip is unpacked here"),
    "xz": Hostile((b"\xfd7zXZ\x00" + bytes(600),), "compressed with xz; only gzip is unpacked here"),
    "overlay-attribute": Hostile(
        (tar(pax("a", **{"SCHILY.xattr.trusted.overlay.redirect": "/etc"})),), "which steers overlays"
    ),
    "owner": Hostile((tar(entry("a", uid=2**32)),), "owner 4294967296:0 cannot be"),
}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def write_blob(layout: Path, data: bytes) -> dict[str, Any]:
    place = layout / "blobs" / "sha256"
    place.mkdir(parents=True, exist_ok=True)
    (place / digest_of(data).partition(":")[2]).write_bytes(data)
    return {"digest": digest_of(data), "size": len(data)}


def write_layout(
    layout: Path,
    layers: tuple[bytes, ...],
    *,
    architecture: str,
    process: dict[str, Any] | None = None,
    tags: tuple[str, ...] = ("latest",),
    change: Callable[[dict[str, Any], dict[str, Any]], None] = lambda config, manifest: None,
    index: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = lambda manifests: manifests,
) -> Path:
    """An OCI image layout; `change` may spoil config and manifest, `index` the list of manifests."""
    layout.mkdir()
    descriptors = []
    diffs = []
    for layer in layers:
        packed = layer.startswith(b"\x1f\x8b")
        try:
            diffs.append(digest_of(gzip.decompress(layer) if packed else layer))
        except (EOFError, OSError):
            diffs.append(digest_of(layer))
        descriptors.append({"mediaType": LAYER_TYPE + ("+gzip" if packed else ""), **write_blob(layout, layer)})
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": process or {},
        "rootfs": {"type": "layers", "diff_ids": diffs},
    }
    manifest: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": {}, "layers": descriptors}
    change(config, manifest)
    manifest["config"] = {"mediaType": CONFIG_TYPE, **write_blob(layout, json.dumps(config).encode())}
    listed = {"mediaType": MANIFEST_TYPE, **write_blob(layout, json.dumps(manifest).encode())}
    named = [{**listed, "annotations": {"org.opencontainers.image.ref.name": tag}} for tag in tags]
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": index(named)}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


def pack(layout: Path, target: Path, *further: tuple[tarfile.TarInfo, bytes]) -> Path:
    """The layout as an oci-archive, with `further` entries behind."""
    files = [
        entry(str(path.relative_to(layout)), data=path.read_bytes()) for path in layout.rglob("*") if path.is_file()
    ]
    target.write_bytes(tar(*sorted(files, key=lambda each: each[0].name), *further))
    return target
