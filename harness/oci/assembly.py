"""Put a bundle together from evidence: its config.json, a root file system from here or there, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from harness.errors import InputError
from harness.kernel.procfs import process_stat
from harness.oci import pointer
from harness.oci.bind_source import is_bind
from harness.oci.bundle import Bundle, recipe_config
from harness.oci.evidence import Evidence, Kind, look_at, look_at_rootfs
from harness.oci.here import Here
from harness.oci.host_part import KEPT, HostPart
from harness.oci.image import Image, Source, own_platform, unpack
from harness.oci.portable import Replacement, host_parts, replace
from harness.oci.recipe import load_recipe
from harness.oci.rootfs import build_default, copy_file, copy_tree
from harness.oci.rootfs_paths import look_up_user
from harness.oci.spec import CONFIG_NAME, Config
from harness.oci.synthesized import synthesize
from harness.oci.tarball import Limits
from harness.oci.translation import PATH_VARIABLE
from harness.oci.version import minimum_version

SYNTHESIZED = "synthesized"
_PREFIX = ".oci-harness-bundle-"
_STAGE = re.compile(r"\.oci-harness-bundle-(\d+)-[0-9a-f]{8}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


class Wanted(Struct, frozen=True):
    """What is asked for."""

    source: str = "default"  # see evidence.GRAMMAR
    rootfs: str | None = None  # a directory, an image, or SYNTHESIZED; None: what the source names, if it is here
    settings: tuple[tuple[str, Any], ...] = ()  # (pointer, value): the last word on config.json
    portable: bool = False
    platform: str | None = None  # OS/ARCHITECTURE of an image of several; None: this host's
    limits: Limits = field(default_factory=Limits)


class Assembled(Struct, frozen=True):
    """A bundle, and how it came about."""

    bundle: Bundle
    kind: Kind
    rootfs: str  # copy, reflink, image or synthesized
    rootfs_reason: str | None
    findings: list[HostPart]  # what is still of another host
    replacements: list[Replacement]
    image: Image | None = None


class _Made(Struct):
    how: str
    reason: str | None = None
    image: Image | None = None
    own: bool = False  # its files belong to the ids that a container without a user namespace has


def assemble(path: Path, wanted: Wanted) -> Assembled:
    """Build the bundle `path`, which must not exist or be an empty directory.

    Built beside it and renamed, so that it is there whole or not at all. Raises InputError: what was given cannot be
    used; HostError: this host lacks something for it.
    """
    here = Here.look()
    evidence = look_at(wanted.source, here)
    path = path.absolute()
    with _beside(path) as stage:
        made = _root_file_system(stage, evidence, wanted)
        config, notes = _configuration(evidence, made, stage, wanted)
        rootfs = None if made.how == SYNTHESIZED else stage / "rootfs"
        judged = wanted.portable or evidence.kind != "recipe"  # a recipe is of no host
        parts = [*notes, *host_parts(config.document, here, stage, rootfs)] if judged else []
        parts = [part for part in parts if not _is_set(part.pointer, wanted)]
        done: list[Replacement] = []
        if wanted.portable:
            done = replace(config.document, parts, stage)
            parts = [part for part in parts if part.to is KEPT]
        if made.how == SYNTHESIZED:
            names = tuple(each.what for each in parts if each.pointer == "/process/user" and _NAME.fullmatch(each.what))
            synthesize(stage / "rootfs", config.document, stage, names)
        if made.own:
            _shift_owners(stage / "rootfs", config.document)
        config = Config(config.document)
        config.save(stage / CONFIG_NAME)
        if evidence.kind == "recipe":
            stage.chmod(0o755)
        elif _new_user_namespace(config.document):
            stage.chmod(0o711)  # its root is none here, and has to get through
        _put(stage, path)
    return Assembled(Bundle(path, config), evidence.kind, made.how, made.reason, parts, done, made.image)


def _is_set(place: str, wanted: Wanted) -> bool:
    """Whether --set has the say over a place of config.json."""
    return any(place == chosen or place.startswith(f"{chosen}/") for chosen, _ in wanted.settings)


def _configuration(evidence: Evidence, made: _Made, stage: Path, wanted: Wanted) -> tuple[Config, list[HostPart]]:
    """The config with --set applied, and what neither the evidence nor the image could tell."""
    if evidence.config is not None:
        config = evidence.config.copy()
    elif made.image is not None and evidence.image is not None:
        config = _config_of_image(made.image)
    else:
        config = recipe_config(load_recipe(evidence.name if evidence.kind == "recipe" else "shell"))
    config.set("/root/path", "rootfs")
    notes = [*evidence.notes, *_notes_of_image(made.image, evidence)]
    _apply_user(config, stage / "rootfs", evidence, made, notes)
    for place, value in wanted.settings:
        config.set(place, value)
    if evidence.kind == "recipe" and not _is_set("/ociVersion", wanted):
        config.set("/ociVersion", minimum_version(config.document))
    _copy_relative_sources(config, evidence.base, stage)
    return config, notes


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A directory beside `path`, gone at the end unless renamed. Nobody else may enter: images have set-id files."""
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise InputError(f"{path} exists and is not an empty directory; name a new one")
    stage = path.parent / f"{_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead(path.parent)
        stage.mkdir(mode=0o700)
        yield stage
    except OSError as error:
        name = f" ({error.filename})" if error.filename else ""
        raise InputError(f"{path}: {error.strerror or error}{name}") from None
    except ValueError as error:  # a NUL, half a surrogate pair
        raise InputError(f"{path}: a path in the configuration cannot be one of this host: {error}") from None
    finally:
        if stage.exists():
            shutil.rmtree(stage, ignore_errors=True)


def _remove_dead(directory: Path) -> None:
    """What a killed run has left here."""
    for place in directory.glob(f"{_PREFIX}*"):
        match = _STAGE.fullmatch(place.name)
        if match is not None and process_stat(int(match[1])) is None and place.lstat().st_uid == os.geteuid():
            shutil.rmtree(place, ignore_errors=True)


def _put(stage: Path, path: Path) -> None:
    with suppress(FileNotFoundError):
        path.rmdir()
    stage.rename(path)


def _root_file_system(stage: Path, evidence: Evidence, wanted: Wanted) -> _Made:
    """Make stage/rootfs, except for a synthesized one, which needs the final configuration."""
    rootfs = stage / "rootfs"
    reason = None
    source: Path | Source | None = None
    if wanted.rootfs is not None and evidence.image is not None:
        raise InputError(f"--rootfs {wanted.rootfs}: the image {evidence.image} brings its own")
    if wanted.rootfs is None:
        source = evidence.image
        named = [each for each in evidence.rootfs if _has_something(each)]
        if source is None and named:
            source = named[0]
        elif evidence.rootfs:
            reason = f"{evidence.rootfs[0]} is not here, or empty"
    elif wanted.rootfs != SYNTHESIZED:
        source = look_at_rootfs(wanted.rootfs)
    if isinstance(source, Source):
        work = stage / "image"
        work.mkdir()
        image = unpack(source, rootfs, work, wanted.limits, wanted.platform)
        shutil.rmtree(work)
        return _Made("image", str(source), image, own=True)
    if wanted.rootfs == SYNTHESIZED and evidence.image is not None:
        raise InputError(
            "--rootfs synthesized: the configuration is in the image, which has a root file system of its own"
        )
    rootfs.mkdir(mode=0o755)
    rootfs.chmod(0o755)
    if source is not None:
        if stage.resolve().is_relative_to(source.resolve()):
            raise InputError(f"the root file system {source} contains the new bundle; name another with --rootfs")
        provided = copy_tree(source, rootfs)
        return _Made(provided.how, f"of {source}" + (f"; {provided.reason}" if provided.reason else ""))
    if evidence.kind == "recipe" and wanted.rootfs is None:
        build_default(rootfs, load_recipe(evidence.name).rootfs.get("links"))
        return _Made("copy", "the embedded default rootfs is written anew", own=True)
    return _Made(SYNTHESIZED, reason or "nothing names a rootfs", own=True)


def _has_something(path: Path) -> bool:
    try:
        return path.is_dir() and any(path.iterdir())
    except (OSError, ValueError):
        return False


def _config_of_image(image: Image) -> Config:
    """image-spec conversion.md."""
    config = recipe_config(load_recipe("shell"))
    told = image.config.config
    if told is None:
        return config
    args = [*(told.entrypoint or ()), *(told.cmd or ())]
    if args:
        config.set("/process/args", args)
    env = list(told.env or ())
    named = any(each.startswith("PATH=") for each in env)
    config.set("/process/env", env if named else [PATH_VARIABLE, *env])
    config.set("/process/cwd", told.working_dir or "/")
    return config


def _notes_of_image(image: Image | None, evidence: Evidence) -> Iterator[HostPart]:
    if image is None:
        return
    if image.platform != own_platform():
        yield HostPart("/process/args/0", image.platform, f"the image is not for {own_platform()}: exec format error")
    told = image.config.config
    if evidence.image is not None and (told is None or not [*(told.entrypoint or ()), *(told.cmd or ())]):
        yield HostPart("/process/args", "the image names no command", "/bin/sh takes its place")


def _apply_user(config: Config, rootfs: Path, evidence: Evidence, made: _Made, notes: list[HostPart]) -> None:
    """Names and numbers of users, as the root file system knows them; runtime specs have their numbers already."""
    text = evidence.user
    if evidence.kind == "image" and made.image is not None and made.image.config.config is not None:
        text = made.image.config.config.user or ""
    if text is None:
        return
    user = look_up_user(rootfs, text, evidence.groups)
    config.set("/process/user", {"uid": user.uid, "gid": user.gid})
    if user.additional_gids:
        config.set("/process/user/additionalGids", list(user.additional_gids))
    for name in user.unknown:
        notes.append(HostPart("/process/user", name, "a name that only its own rootfs knows: 1000 stands for it"))


def _copy_relative_sources(config: Config, base: Path | None, stage: Path) -> None:
    """Bind sources inside the bundle that this one is made from go with it; others get their whole path."""
    for place, mount in pointer.select(config.document, "/mounts/*", dict):
        source = mount.get("source")
        if base is None or not is_bind(mount) or not isinstance(source, str) or source.startswith("/") or not source:
            continue
        there = (base / source).resolve()
        if not there.exists():
            continue
        own = there.is_relative_to(base.resolve()) and not there.is_relative_to((base / "rootfs").resolve())
        if not own or there == base.resolve() or not (there.is_dir() or there.is_file()):
            config.set(f"{place}/source", str(there))
            continue
        name = f"mounts/{pointer.parse(place)[-1]}-{re.sub(r'^[0-9]+-', '', there.name)}"
        config.set(f"{place}/source", name)
        (stage / "mounts").mkdir(exist_ok=True)
        if there.is_dir():
            (stage / name).mkdir()
            copy_tree(there, stage / name)
        else:
            copy_file(there, stage / name)


def _new_user_namespace(document: dict[str, Any]) -> bool:
    spaces = pointer.select(document, "/linux/namespaces/*", dict)
    return any(each.get("type") == "user" and not each.get("path") for _, each in spaces)


def _shift_owners(rootfs: Path, document: dict[str, Any]) -> None:
    """Give the files of a new user namespace to its own ids: else all of them belong to nobody in there."""
    if not _new_user_namespace(document):
        return
    uids, gids = (_mappings(document, name) for name in ("uidMappings", "gidMappings"))
    for directory, names, files in os.walk(rootfs):
        for place in (Path(directory), *(Path(directory) / name for name in [*names, *files])):
            status = place.lstat()
            if place.is_dir() and not place.is_symlink() and place != Path(directory):
                continue  # comes as a directory of its own
            os.lchown(place, _mapped(status.st_uid, uids), _mapped(status.st_gid, gids))
            if not stat.S_ISLNK(status.st_mode):
                place.chmod(stat.S_IMODE(status.st_mode))  # chown(2) has cleared set-id bits


def _mappings(document: dict[str, Any], name: str) -> list[tuple[int, int, int]]:
    """(first id inside, first id here, how many)."""
    keys = ("containerID", "hostID", "size")
    found = [tuple(each.get(key) for key in keys) for _, each in pointer.select(document, f"/linux/{name}/*", dict)]
    return [(a, b, c) for a, b, c in found if type(a) is int and type(b) is int and type(c) is int]


def _mapped(number: int, mappings: list[tuple[int, int, int]]) -> int:
    return next((host + number - inside for inside, host, size in mappings if inside <= number < inside + size), number)
