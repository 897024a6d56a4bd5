"""Build bundles: a directory with config.json and rootfs, from a recipe, a directory or another bundle."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from harness.errors import BundleError, InputError, Problem
from harness.oci.recipe import Recipe, load_recipe
from harness.oci.rootfs import Provided, build_default, copy_tree, mount_overlay
from harness.oci.spec import Config
from harness.oci.version import minimum_version

CONTAINER_ID = re.compile(r"[A-Za-z0-9_+.-]{1,128}")


def check_container_id(container_id: str) -> str:
    """The id itself. Raises InputError: the runtimes use it as a directory name, so it must be a plain, short one."""
    if not CONTAINER_ID.fullmatch(container_id) or container_id in (".", ".."):
        shown = container_id if len(container_id) <= 40 else container_id[:37] + "..."
        raise InputError(
            f"container id {shown!r} cannot be used: 1 to 128 of letters, digits and '_+-.', and neither '.' nor '..'"
        )
    return container_id


class Bundle(Struct, frozen=True):
    """A bundle on disk. `provided` tells how the rootfs came about; None for a bundle that was there before."""

    path: Path
    config: Config
    provided: Provided | None = None

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Raises BundleError: no directory, no config.json, or one that cannot be read as one."""
        if not path.is_dir():
            raise InputError(f"{path}: no such directory; a bundle is a directory with config.json and rootfs")
        return cls(path, Config.load(path / "config.json"))

    @property
    def rootfs(self) -> Path:
        """Where root.path points to. Raises BundleError when config.json does not say."""
        value = self.config.document.get("root")
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str):
            raise BundleError(str(self.path / "config.json"), [Problem("/root/path", "missing; name the rootfs")])
        return self.path / path


def recipe_config(recipe: Recipe, settings: tuple[tuple[str, Any], ...] = ()) -> Config:
    """The recipe's config.json with `settings` (JSON pointer, value) applied, at the oldest ociVersion that will do."""
    config = Config(recipe.config).copy()
    for pointer, value in settings:
        config.set(pointer, value)
    if not any(pointer == "/ociVersion" for pointer, _ in settings):
        config.set("/ociVersion", minimum_version(config.document))
    return config


def create_bundle(
    path: Path,
    source: str | Path = "default",
    settings: tuple[tuple[str, Any], ...] = (),
) -> Bundle:
    """A self-contained bundle that any runtime can use by hand: its rootfs is a copy, by reflink where possible.

    `source`: a recipe's name, or the Path of a rootfs directory or of a bundle. Raises InputError when `path` is
    there already and not empty; leaves nothing half done.
    """
    fresh = not path.exists()
    if not fresh and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} exists and is not an empty directory; name a new one")
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "rootfs").mkdir()
        if isinstance(source, Path):
            config, rootfs = _from_directory(source, settings)
            provided = copy_tree(rootfs, path / "rootfs")
        else:
            recipe = load_recipe(source)
            config = recipe_config(recipe, settings)
            build_default(path / "rootfs", recipe.rootfs.get("links"))
            provided = Provided("copy", "the embedded default rootfs is written anew")
        config.save(path / "config.json")
    except OSError as error:
        _undo(path, fresh)
        raise InputError(f"{path}: {error.strerror}{f' ({error.filename})' if error.filename else ''}") from None
    except BaseException:
        _undo(path, fresh)
        raise
    return Bundle(path, config, provided)


def _undo(path: Path, fresh: bool) -> None:
    if fresh:
        shutil.rmtree(path, ignore_errors=True)
    else:
        for entry in path.iterdir():
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()


def _from_directory(source: Path, settings: tuple[tuple[str, Any], ...]) -> tuple[Config, Path]:
    if (source / "config.json").is_file():
        bundle = Bundle.load(source)
        config = bundle.config.copy()
        for pointer, value in settings:
            config.set(pointer, value)
        config.set("/root/path", "rootfs")
        return config, bundle.rootfs
    return recipe_config(load_recipe("shell"), settings), source


class Template(Struct, frozen=True):
    """A config and a shared lower directory, from which short-lived bundles are made by overlay."""

    config: Config
    lower: Path

    def instantiate(self, directory: Path, cgroups_path: str, call: Callable[..., None]) -> Bundle:
        """A bundle in `directory` with a cgroup path of its own; the overlay is mounted through `call`."""
        config = self.config.copy()
        config.set("/linux/cgroupsPath", cgroups_path)
        provided = mount_overlay(call, self.lower, directory)
        (directory / "config.json").write_bytes(config.encode())
        return Bundle(directory, config, provided)
