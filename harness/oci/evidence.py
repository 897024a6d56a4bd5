"""Tell what --from was given by looking at it: a recipe, a directory, a bundle, JSON of some engine, or an image."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field

from harness.errors import InputError
from harness.oci import document as json_document
from harness.oci.here import Here
from harness.oci.host_part import HostPart
from harness.oci.image import Source
from harness.oci.inspect_docker import parse_inspected
from harness.oci.recipe import recipe_names
from harness.oci.spec import CONFIG_NAME, Config
from harness.oci.tarball import COMPRESSIONS, GZIP
from harness.oci.translation import translate

Kind = Literal["recipe", "rootfs", "bundle", "image", "runtime-spec", "crictl", "ctr", "docker", "podman"]
STANDARD_INPUT = "-"
JSON_BYTES = 64 * 1024 * 1024
GRAMMAR = (
    "a recipe's name, a rootfs, bundle or image layout directory, an image archive (oci or docker), or JSON "
    "(config.json, crictl, ctr, docker or podman inspect)"
)


class Evidence(Struct, frozen=True):
    """What a bundle can be made of."""

    kind: Kind
    name: str  # as it was given
    path: Path | None = None  # the directory or file
    image: Source | None = None
    config: Config | None = None  # None: comes from the recipe or the image
    base: Path | None = None  # where relative paths of the config start
    rootfs: tuple[Path, ...] = ()  # where its root file system is, if it is here at all
    user: str | None = None  # USER[:GROUP] to look up in the root file system
    groups: tuple[str, ...] = ()
    notes: list[HostPart] = field(default_factory=list)  # what the evidence could not tell


def look_at(text: str, here: Here) -> Evidence:
    """What `text` names. Raises InputError, one line, when it cannot be told or cannot be read."""
    if text == STANDARD_INPUT:
        return _from_json(sys.stdin.buffer.read(JSON_BYTES + 1), "standard input", None, here)
    path, reference = _split(text, "--from")
    try:
        if path.is_dir():
            return _from_directory(text, path, reference)
        if path.exists():
            return _from_file(text, path, reference, here)
    except OSError as error:
        raise InputError(f"--from {text}: cannot be read: {error.strerror}") from None
    if "/" not in text and text in recipe_names():
        return Evidence("recipe", text)
    if "/" in text:
        raise InputError(f"--from {text}: no such file or directory")
    raise InputError(
        f"--from {text}: no such file, and there is no recipe {text!r}; there are {', '.join(recipe_names())}"
    )


def _split(text: str, flag: str) -> tuple[Path, str | None]:
    """PATH or PATH:TAG; what is there wins. Raises InputError for what can be no path."""
    if not text or "\0" in text:
        raise InputError(f"{flag} {text!a}: neither a path nor a name")
    place, colon, reference = text.rpartition(":")
    if colon and place and not os.path.lexists(text) and os.path.lexists(place):
        return Path(place), reference
    return Path(text), None


def look_at_rootfs(text: str) -> Path | Source:
    """What --rootfs names: a directory or an image. Raises InputError."""
    path, reference = _split(text, "--rootfs")
    if path.is_dir():
        return Source(path, reference) if (path / "oci-layout").is_file() else path
    if path.is_file():
        with path.open("rb") as file:
            if _is_tar(file.read(512)):
                return Source(path, reference)
    raise InputError(f"--rootfs {text}: neither a directory nor an image; or write synthesized")


def _from_directory(text: str, path: Path, reference: str | None) -> Evidence:
    if (path / "oci-layout").is_file():
        return Evidence("image", text, path, Source(path, reference))
    if (path / CONFIG_NAME).is_file():
        config = Config.load(path)
        return Evidence("bundle", text, path, config=config, base=path, rootfs=_named_rootfs(config, path))
    if not any(path.iterdir()):
        raise InputError(f"--from {text}: the directory is empty")
    return Evidence("rootfs", text, path, rootfs=(path,))


def _from_file(text: str, path: Path, reference: str | None, here: Here) -> Evidence:
    if not path.is_file():
        raise InputError(f"--from {text}: neither a file nor a directory")
    with path.open("rb") as file:
        begin = file.read(512)
    if begin.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        with path.open("rb") as file:
            return _from_json(file.read(JSON_BYTES + 1), str(path), path.parent, here)
    if not _is_tar(begin):
        raise InputError(f"--from {text}: cannot tell what it is; it may be {GRAMMAR}")
    return Evidence("image", text, path, Source(path, reference))


def _is_tar(begin: bytes) -> bool:
    """By the first 512 bytes; a compressed file of another kind is found out later."""
    return begin[257:262] == b"ustar" or begin.startswith((GZIP, *COMPRESSIONS))


def _from_json(data: bytes, name: str, base: Path | None, here: Here) -> Evidence:
    if len(data) > JSON_BYTES:
        raise InputError(f"{name}: larger than {JSON_BYTES} bytes, so no output of inspect")
    try:
        document = json_document.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except ValueError as error:
        raise InputError(f"{name}: not JSON: {error}") from None
    place: tuple[str, ...] = ()
    if isinstance(document, list):
        if len(document) != 1:
            raise InputError(f"{name}: {len(document)} containers in it; give the output for one")
        place, document = ("0",), document[0]
    if not isinstance(document, dict):
        raise InputError(f"{name}: {json_document.describe(document)} is nothing that a container engine prints")
    if "Config" in document and "HostConfig" in document:
        return _from_inspected(document, name, place, here)
    kind, spec = _runtime_spec(document, name)
    config = Config(spec, name)
    _ = config.spec  # every type error now, with its pointer
    return Evidence(kind, name, config=config, base=base, rootfs=_named_rootfs(config, base))


def _runtime_spec(document: dict[str, Any], name: str) -> tuple[Kind, dict[str, Any]]:
    """The config.json that is in some output, and whose output that is."""
    info = document.get("info")
    if isinstance(info, dict):
        nested = info.get("runtimeSpec")
        if isinstance(nested, dict):
            return "crictl", nested
        raise InputError(
            f"{name}: crictl's output, but /info/runtimeSpec is not in it (the container engine leaves it out)"
        )
    if isinstance(document.get("Spec"), dict):
        return "ctr", document["Spec"]
    if "ociVersion" in document and ("process" in document or "root" in document):
        return "runtime-spec", document
    keys = ", ".join(ascii(key)[1:-1] for key in list(document)[:6]) or "nothing"
    raise InputError(f"{name}: JSON that is no container's description ({keys}); it may be {GRAMMAR}")


def _from_inspected(document: dict[str, Any], name: str, place: tuple[str, ...], here: Here) -> Evidence:
    inspected = parse_inspected(document, name, place)
    try:
        translated = translate(inspected, here)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    exact = inspected.oci_config_path
    if exact and Path(exact).is_file():
        translated.notes.append(HostPart("", exact, "podman's own config.json is here: --from it is exact"))
    return Evidence(
        "docker" if inspected.engine == "docker" else "podman",
        name,
        config=Config(translated.document, name),
        rootfs=tuple(Path(each) for each in translated.rootfs if each.startswith("/")),
        user=translated.user,
        groups=translated.groups,
        notes=translated.notes,
    )


def _named_rootfs(config: Config, base: Path | None) -> tuple[Path, ...]:
    root = config.document.get("root")
    path = root.get("path") if isinstance(root, dict) else None
    if not isinstance(path, str) or not path or "\0" in path or (base is None and not path.startswith("/")):
        return ()
    return ((base or Path("/")) / path,)
