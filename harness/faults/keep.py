"""A broken bundle to keep: a directory of its own that fails without this tool."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
from msgspec import Struct

from harness.faults import rootfs_steps
from harness.faults.catalogue import Entry
from harness.faults.node import apply_patches
from harness.faults.verdict import Verdict
from harness.oci.bundle import create_bundle


class Kept(Struct, frozen=True):
    """`by_hand`: what the fault changes on the node, which a directory cannot hold."""

    directory: Path
    by_hand: list[str]

    def commands(self, verdict: Verdict) -> list[str]:
        """The two commands that show the failure, as a shell takes them."""
        container_id = verdict.fault[:60]
        binary = shlex.quote(verdict.runtime_path)
        create = f"{binary} create --bundle {shlex.quote(str(self.directory))} {container_id}"
        start = f"{binary} start {container_id}; {binary} delete --force {container_id}"
        if verdict.view_steps:
            steps = "; ".join(verdict.view_steps)
            return [
                f"unshare -m sh -c {shlex.quote(f'{steps}; {create}')}",
                f"unshare -m sh -c {shlex.quote(f'{steps}; {start}')}",
            ]
        return [create, start]


def keep_bundle(entry: Entry, directory: Path) -> Kept:
    """Raises InputError where `directory` is there already."""
    fault = entry.fault
    directory = directory.absolute()
    bundle = create_bundle(directory, fault.recipe)
    work = directory / "work-dir"
    work.mkdir()
    variables = {
        "id": entry.slug[:60],
        "bundle": str(directory),
        "rootfs": str(directory / "rootfs"),
        "work": str(work),
        "run": "oci-harness-kept",
        "cgroup": f"oci-harness-kept/{entry.slug[:60]}",
        "root": "/run/runc",
    }
    apply_patches(bundle.config, fault.break_.config, variables)
    if fault.break_.raw_config is not None:
        (directory / "config.json").write_text(fault.break_.raw_config)
    else:
        bundle.config.save(directory / "config.json")
    for step in fault.break_.rootfs:
        rootfs_steps.apply(step, directory / "rootfs")
    by_hand = [msgspec.json.encode(step).decode() for step in fault.break_.node]
    return Kept(directory, by_hand)
