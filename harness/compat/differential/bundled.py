"""A bundle as changes of a skeleton that runs: so its differences are shrunk as generated ones are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from harness.compat.differential.bounds import OWN_PATH, WAITS
from harness.compat.differential.edits import Document, Edit
from harness.diagnosis.anatomy import Anatomy, shown
from harness.diagnosis.skeleton import PAYLOAD
from harness.errors import InputError
from harness.oci import pointer as json_pointer
from harness.oci.bundle import Bundle
from harness.oci.document import copied

_COMMAND: Final = "/process/args"


def waiting(document: Document) -> Document:
    """A copy that runs the harness's program, which waits, in a cgroup of the run."""
    made: Document = copied(document)
    json_pointer.set(made, _COMMAND, WAITS)
    json_pointer.set(made, "/linux/cgroupsPath", OWN_PATH)
    return made


class Units:
    """A bundle's config.json taken apart (diagnosis/anatomy.py): each unit is one change of the skeleton."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises InputError where the bundle has no rootfs directory."""
        self.rootfs = bundle.rootfs
        if not self.rootfs.is_dir():
            raise InputError(f"{bundle.path}/config.json: /root/path: {self.rootfs} is no directory")
        self._anatomy = Anatomy(bundle.config.document, own_rootfs=True)
        units = [unit for unit in self._anatomy.units if unit != "/root/path"]  # an overlay of it is the skeleton's
        self._names = {self._edit(unit): unit for unit in units}

    def _edit(self, unit: str) -> Edit:
        pointer, missing = shown(unit)
        if missing is not None:
            return Edit("delete", pointer)
        return Edit("set", pointer, self._anatomy.nodes[unit].value)

    def skeleton(self) -> Document:
        return self._composed([])

    def cases(self) -> list[tuple[Edit, ...]]:
        """The whole bundle with a program that waits to be looked at, then as it is."""
        every = tuple(self._names)
        return [tuple(edit for edit in every if edit.pointer != _COMMAND), every]

    def apply(self, _skeleton: Document, edits: Iterable[Edit]) -> Document | None:
        return self._composed([self._names[edit] for edit in edits])

    def _composed(self, units: list[str]) -> Document:
        document, _ = self._anatomy.compose(self._anatomy.whole(units))
        made: dict[str, Any] = document
        if json_pointer.get(made, _COMMAND, None) == [PAYLOAD]:
            json_pointer.set(made, _COMMAND, WAITS)
        if isinstance(made.get("linux"), dict):
            made["linux"].setdefault("cgroupsPath", OWN_PATH)
        return made
