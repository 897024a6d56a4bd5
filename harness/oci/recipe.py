"""Recipes: named bundle descriptions, JSON data files that build on one another by merge patches (RFC 7396)."""

from __future__ import annotations

import copy
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from harness.errors import HostError, InputError
from harness.oci.document import decode, describe

_SUFFIX = ".json"
_KEYS = {"description": str, "base": str, "config": dict, "rootfs": dict}


class Recipe(Struct, frozen=True):
    """A recipe with its bases merged in."""

    name: str
    description: str  # one line
    config: dict[str, Any]  # a config.json document
    rootfs: dict[str, Any] = field(default_factory=dict)  # what to put into the root file system


def data_root() -> Traversable:
    """The directory of the package's data: from an installed package, else from the checkout. Raises HostError."""
    try:
        return resources.files("harness.bundles")
    except ModuleNotFoundError:
        checkout = Path(__file__).resolve().parents[2] / "bundles"
    if not checkout.is_dir():
        raise HostError(f"the data of this package is missing: no package harness.bundles and no {checkout}")
    return checkout


def recipe_names(root: Traversable | None = None) -> list[str]:
    """Names of all recipes, sorted. `root` is data_root() unless given."""
    directory = (root or data_root()) / "recipes"
    names = [each.name for each in directory.iterdir() if each.name.endswith(_SUFFIX)]
    return sorted(name.removesuffix(_SUFFIX) for name in names)


def load_recipe(name: str, root: Traversable | None = None) -> Recipe:
    """The recipe `name`, its bases merged in. Raises InputError: unknown, no valid file, or bases in a circle."""
    root = root or data_root()
    chain: list[str] = []
    layers: list[dict[str, Any]] = []
    wanted: str | None = name
    while wanted is not None:
        if wanted in chain:
            raise InputError(f"recipe {name}: its bases go in a circle: {' -> '.join([*chain, wanted])}")
        layer = _read(wanted, root, chain)
        chain.append(wanted)
        layers.append(layer)
        wanted = layer.get("base")
    config: dict[str, Any] = {}
    rootfs: dict[str, Any] = {}
    for layer in reversed(layers):
        config = merge_patch(config, layer.get("config", {}))
        rootfs = merge_patch(rootfs, layer.get("rootfs", {}))
    return Recipe(name, layers[0]["description"], config, rootfs)


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` with `patch` put on it: null takes a key away, objects merge, all else replaces (RFC 7396).

    Pure: shares nothing with its arguments.
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def _read(name: str, root: Traversable, chain: list[str]) -> dict[str, Any]:
    names = recipe_names(root)
    if name not in names:
        of = f" (base of {chain[-1]})" if chain else ""
        raise InputError(f"there is no recipe {name!r}{of}; there are {', '.join(names)}")
    file = root / "recipes" / f"{name}{_SUFFIX}"
    try:
        layer = decode(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{file}: not JSON: {error}") from None
    if not isinstance(layer, dict):
        raise InputError(f"{file}: the top level must be an object, not {describe(layer)}")
    for key, value in layer.items():
        if key not in _KEYS:
            raise InputError(f"{file}: unknown key {key!r}; allowed are {', '.join(_KEYS)}")
        if not isinstance(value, _KEYS[key]):
            wanted = "a string" if _KEYS[key] is str else "an object"
            raise InputError(f"{file}: /{key}: expected {wanted}, found {describe(value)}")
    if "description" not in layer:
        raise InputError(f"{file}: /description is missing; say in one line what the recipe is for")
    return layer
