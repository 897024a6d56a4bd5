"""The differences between runtimes, as data: everything else in this package treats them alike."""

from __future__ import annotations

from typing import Final

from msgspec import Struct


class Dialect(Struct, frozen=True):
    """How one family of runtimes deviates from runc's command line."""

    name: str
    # first words of `--version`, lower case
    version_prefix: str
    # global options that this runtime needs to work on a bare host
    global_args: tuple[str, ...] = ()
    systemd_cgroup_arg: str | None = "--systemd-cgroup"
    # options of create, run and exec
    preserve_fds: bool = True
    no_pivot_arg: str | None = "--no-pivot"
    no_new_keyring_arg: str | None = "--no-new-keyring"
    exec_tty_arg: str | None = "--tty"
    kill_all_arg: str | None = "--all"
    # `update`: the option that takes a file of linux.resources
    update_args: tuple[str, ...] = ("--resources",)
    # the container reads the host's CLOCK_MONOTONIC, so a stamp taken inside can be compared
    shares_host_clock: bool = True
    # the container's processes and its cgroup are visible on the host
    uses_host_cgroups: bool = True
    # the runtime refuses a config.json with an ociVersion from here on, whatever it holds
    refuses_oci_version_from: tuple[int, int] | None = None
    # command names of the runtime's own processes: those that are left become our children
    helper_comms: frozenset[str] = frozenset()
    # helpers live as long as the container, and `delete` waits until somebody has reaped them
    helpers_outlive_create: bool = False
    # what works in principle but not in this family; {verb or feature: reason}
    lacks: tuple[tuple[str, str], ...] = ()


RUNC: Final = Dialect(
    name="runc",
    version_prefix="runc version",
    helper_comms=frozenset({"runc", "runc:[0:PARENT]", "runc:[1:CHILD]", "runc:[2:INIT]"}),
)
CRUN: Final = Dialect(
    name="crun",
    version_prefix="crun version",
    kill_all_arg="--all",
    # crun before 1.20: "unknown version specified"
    refuses_oci_version_from=(1, 2),
    helper_comms=frozenset({"crun", "libcrun:intermed"}),
    lacks=(("unknown-signal", "crun 1.8.1 exits with 0 and sends nothing when the signal's name is unknown"),),
)
RUNSC: Final = Dialect(
    name="runsc",
    version_prefix="runsc version",
    global_args=("--network=none", "--ignore-cgroups"),
    preserve_fds=False,
    no_pivot_arg=None,
    no_new_keyring_arg=None,
    exec_tty_arg=None,
    update_args=(),
    shares_host_clock=False,
    uses_host_cgroups=False,
    helper_comms=frozenset({"runsc", "runsc-gofer", "runsc-sandbox", "exe"}),
    helpers_outlive_create=True,
    lacks=(
        ("update", "runsc has no update command"),
        ("tty", "runsc exec takes no --tty"),
        ("preserve-fds", "runsc of 2022 takes no --preserve-fds"),
        ("taken-id", "a create under an id that is taken removes the state of the first container"),
        ("host-cgroup", "runs with --ignore-cgroups, so there is no cgroup of the container to read"),
        ("host-clock", "the sandbox has a CLOCK_MONOTONIC of its own"),
    ),
)
# Any other runtime is taken to speak runc's command line, as the runtime CLI convention asks.
GENERIC: Final = Dialect(name="generic", version_prefix="")

KNOWN: Final = (RUNC, CRUN, RUNSC, Dialect(name="youki", version_prefix="youki"))


def dialect_of(version_text: str) -> Dialect | None:
    """The family whose `--version` this is; None when it is none that we know."""
    first = version_text.strip().lower()
    return next((dialect for dialect in KNOWN if first.startswith(dialect.version_prefix)), None)
