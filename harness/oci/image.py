"""An OCI image layout or an image archive -> a root file system and the image's configuration, by skopeo and umoci.

Whoever made the image is not trusted: what comes in is copied, with digests checked, and looked through before it is
unpacked, and the tools can write to one directory only.
"""

from __future__ import annotations

import os
import platform
import posixpath
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec
from msgspec import Struct

from harness.errors import HostError, InputError
from harness.oci import document as json_document
from harness.oci.confinement import Confinement
from harness.oci.layers import Tree
from harness.oci.tarball import Budget, Limits, read_entries, shown
from harness.units import format_bytes

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}  # uname -m: GOARCH
DOCUMENT_BYTES = 4 * 1024 * 1024  # as much as registries take for a manifest (distribution-spec, Pushing Manifests)
LAYER_TYPES = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip")
_NAME = "org.opencontainers.image.ref.name"


class ImageProcess(msgspec.Struct, frozen=True, rename="pascal"):
    """image-spec config.md, the object `config`."""

    user: str | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    working_dir: str | None = None


class _Rootfs(msgspec.Struct, frozen=True):
    diff_ids: list[str]


class ImageConfig(msgspec.Struct, frozen=True):
    """image-spec config.md, as far as it is used here."""

    architecture: str
    os: str
    rootfs: _Rootfs
    config: ImageProcess | None = None


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    digest: str
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None


class _Manifest(msgspec.Struct, frozen=True):
    config: _Descriptor
    layers: list[_Descriptor]


class _Index(msgspec.Struct, frozen=True):
    manifests: list[_Descriptor]


class Source(Struct, frozen=True):
    """Where an image is: a layout directory, or an archive of one, or what `docker save` writes."""

    path: Path
    reference: str | None = None  # tag or name, where there are several

    def __str__(self) -> str:
        return f"{self.path}:{self.reference}" if self.reference else str(self.path)


class Image(Struct, frozen=True):
    """What an unpacked image says of itself."""

    digest: str  # of the manifest
    config: ImageConfig
    size_bytes: int  # of all layers, unpacked

    @property
    def platform(self) -> str:
        return f"{self.config.os}/{self.config.architecture}"


def own_platform() -> str:
    return f"linux/{MACHINES.get(platform.machine(), platform.machine())}"


def unpack(source: Source, rootfs: Path, work: Path, limits: Limits, wanted: str | None = None) -> Image:
    """Unpack an image into `rootfs`, which must not exist; `work`: an empty directory beside it, for what lies between.

    `wanted`: OS/ARCHITECTURE to take from an image of several; this host's if not given. Raises InputError, one line
    with the source: damaged, hostile, too large, of no such platform; HostError: no umoci or skopeo, no root, no room.
    """
    system, _, architecture = (wanted or own_platform()).partition("/")
    if not system or not architecture or "/" in architecture:
        raise InputError(f"--platform {wanted}: write OS/ARCHITECTURE, as in linux/arm64")
    transport, reference = _vet(source, limits)
    with Confinement(work.parent) as confinement:
        (work / "source").symlink_to(source.path.resolve())  # its real path may hold what skopeo takes for a tag
        here = work.name
        flags = ["--insecure-policy", f"--tmpdir={work}", f"--override-os={system}", f"--override-arch={architecture}"]
        origin, layout = f"{transport}:{here}/source{reference}", f"{here}/layout"
        copy = ["skopeo", *flags, "copy", "--quiet", "--format=oci", origin, f"oci:{layout}:image"]
        confinement.run(copy, about=str(source))
        digest, manifest = _manifest(work / "layout", source)
        config = _blob(work / "layout", manifest.config, ImageConfig, source)
        if len(config.rootfs.diff_ids) != len(manifest.layers):
            known = len(config.rootfs.diff_ids)
            raise InputError(f"{source}: {len(manifest.layers)} layers in its manifest, but {known} in its config")
        size = _look_through(work / "layout", manifest, limits, source)
        _check_room(work, size, source)
        confinement.run(["umoci", "raw", "unpack", "--image", f"{layout}:image", rootfs.name], about=str(source))
    if not rootfs.is_dir():
        raise InputError(f"{source}: umoci made no root file system of it")
    _check_result(rootfs, source)
    return Image(digest, config, size)


def _vet(source: Source, limits: Limits) -> tuple[str, str]:
    """Look at what skopeo is going to read; its words for the format and for which image of it. Raises InputError."""
    try:
        if source.path.is_dir():
            return "oci", _vet_layout(source, limits)
        with source.path.open("rb") as file:
            return _vet_archive(source, file, limits)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from None


def _vet_layout(source: Source, limits: Limits) -> str:
    budget = Budget(limits)
    for directory, names, files in os.walk(source.path):
        for name in [*names, *files]:
            budget.count()
            status = (Path(directory) / name).lstat()
            if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
                raise InputError(f"{name!a} is neither a file nor a directory; a layout has nothing else")
            budget.spend(status.st_size)
    return _chosen(_read(source.path / "index.json"), source.reference)


def _vet_archive(source: Source, file: IO[bytes], limits: Limits) -> tuple[str, str]:
    seen: set[str] = set()
    documents: dict[str, bytes] = {}
    for entry, data in read_entries(file, Budget(limits)):
        place = posixpath.normpath(entry.name)
        if entry.name.startswith("/") or place.split("/")[0] == "..":
            raise InputError(f"{shown(entry)}: a name that leads outside of the archive")
        # what `docker save` did with a layer that it had written already
        same = entry.issym() and place.endswith("/layer.tar") and _beside(place, entry.linkname) in seen
        if not (entry.isreg() or entry.isdir() or same):
            raise InputError(f"{shown(entry)}: neither a file nor a directory; an image archive has nothing else")
        if place in seen and not entry.isdir():
            raise InputError(f"{shown(entry)}: it is in the archive twice")
        seen.add(place)
        if place in ("manifest.json", "index.json"):
            documents[place] = data()
    if "oci-layout" in seen and "index.json" in documents:
        return "oci-archive", _chosen(_decode(documents["index.json"], "index.json"), source.reference)
    if "manifest.json" in documents:
        return "docker-archive", _chosen_docker(_decode(documents["manifest.json"], "manifest.json"), source.reference)
    raise InputError("a tar, but no image (neither index.json nor manifest.json); a rootfs has to be a directory")


def _beside(place: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), link))


def _chosen(document: Any, reference: str | None) -> str:
    """Which image of an index.json, as skopeo wants it; the only one needs no name."""
    manifests = _convert(document, _Index, "index.json").manifests
    names = [(each.annotations or {}).get(_NAME) for each in manifests]
    if reference is None:
        if len(manifests) == 1:
            return f":{names[0]}" if names[0] else ""
        raise InputError(f"{len(manifests)} images in it; name one: {_listed(names)}")
    if reference not in names:
        raise InputError(f"no image {reference!r} in it; there are {_listed(names)}")
    return f":{reference}"


def _chosen_docker(document: Any, reference: str | None) -> str:
    if not isinstance(document, list) or not all(isinstance(each, dict) for each in document) or not document:
        raise InputError("its manifest.json is no list of images")
    tags = [[str(tag) for tag in each.get("RepoTags") or ()] for each in document]
    if reference is None:
        if len(document) == 1:
            return ":@0"
        raise InputError(f"{len(document)} images in it; name one: {_listed([tag for each in tags for tag in each])}")
    for index, each in enumerate(tags):
        if reference in each:
            return f":@{index}"
    raise InputError(f"no image {reference!r} in it; there are {_listed([tag for each in tags for tag in each])}")


def _listed(names: list[str] | list[str | None]) -> str:
    known = [ascii(name)[1:-1] for name in names if name]
    return ", ".join(known[:20]) or "none with a name"


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        data = file.read(DOCUMENT_BYTES + 1)
    if len(data) > DOCUMENT_BYTES:
        raise InputError(f"{path.name} has more than {format_bytes(DOCUMENT_BYTES)}")
    return _decode(data, path.name)


def _decode(data: bytes, name: str) -> Any:
    try:
        return json_document.decode(data)
    except ValueError as error:
        raise InputError(f"{name}: not JSON: {error}") from None


def _convert(document: Any, kind: type[Any], name: str) -> Any:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {error}") from None


def _manifest(layout: Path, source: Source) -> tuple[str, _Manifest]:
    index = _convert(_read(layout / "index.json"), _Index, "index.json")
    manifest: _Manifest = _blob(layout, index.manifests[0], _Manifest, source)
    for number, layer in enumerate(manifest.layers, 1):
        if layer.urls or layer.media_type not in LAYER_TYPES:
            what = "is to be fetched from elsewhere" if layer.urls else f"is of the type {layer.media_type!r}"
            raise InputError(f"{source}: layer {number} {what}; only tar and tar+gzip inside the image are unpacked")
    return index.manifests[0].digest, manifest


def _blob(layout: Path, descriptor: _Descriptor, kind: type[Any], source: Source) -> Any:
    try:
        return _convert(_read(_blob_path(layout, descriptor)), kind, descriptor.digest)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def _blob_path(layout: Path, descriptor: _Descriptor) -> Path:
    algorithm, _, digest = descriptor.digest.partition(":")
    return layout / "blobs" / algorithm / digest


def _look_through(layout: Path, manifest: _Manifest, limits: Limits, source: Source) -> int:
    """All layers in their order; how much they hold unpacked. Raises InputError."""
    tree, budget = Tree(), Budget(limits)
    for number, layer in enumerate(manifest.layers, 1):
        try:
            with _blob_path(layout, layer).open("rb") as file:
                tree.add_layer(file, budget)
        except InputError as error:
            raise InputError(f"{source}: layer {number}: {error}") from None
    return budget.size_bytes


def _check_room(directory: Path, size: int, source: Source) -> None:
    free = shutil.disk_usage(directory).free
    if size > free:
        raise HostError(f"{source} unpacks to {format_bytes(size)}, but {directory} has {format_bytes(free)} free")


def _check_result(rootfs: Path, source: Source) -> None:
    """What is there now, whoever made it: one file system, no device nodes."""
    device = rootfs.stat().st_dev
    for directory, names, files in os.walk(rootfs):
        for name in [*names, *files]:
            with suppress(FileNotFoundError):
                status = (Path(directory) / name).lstat()
                if status.st_dev != device or stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    raise InputError(f"{source}: unpacked, {name!r} is a device node or a mount; it is refused")
