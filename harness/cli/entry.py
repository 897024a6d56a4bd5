"""The `oci-harness` command: commands are imported when they are called, errors become one line and an exit status."""

from __future__ import annotations

import sys

from harness.version import VERSION

# command: (module below harness.cli, attribute, one line for the overview)
COMMANDS = {
    "bench": ("bench", "bench", "Measure lifecycles of one or more runtimes, interleaved."),
    "bundle": ("bundle", "bundle", "Create or validate a bundle."),
    "compare": ("compare", "compare", "Compare two results, and fail on a regression."),
    "compat": ("compat", "compat", "Estimate the oldest kernel that a runtime works on."),
    "conformance": ("conformance", "conformance", "Check runtimes against the sentences of the OCI runtime-spec."),
    "create": ("create", "create", "Create a container from a bundle or a recipe."),
    "delete": ("verbs", "delete", "Delete a stopped container, or any with --force."),
    "diagnose": ("diagnose", "diagnose", "Name the cause in an error text, and what to do about it."),
    "differ": ("differ", "differ", "Compare what two runtimes make of the same config.json."),
    "exec": ("verbs", "exec_", "Run a command in a running container."),
    "features": ("features", "features", "Check what runtimes declare, accept and really do."),
    "gc": ("gc", "gc", "Remove what dead runs left behind."),
    "host": ("host", "host", "Show what this host is and lets runtimes do; with --node, what is wrong with it."),
    "inspect": ("inspect", "inspect", "Show cgroup and namespace state of a container or process."),
    "kernels": ("kernels", "kernels", "List and fetch the kernels that matrix boots."),
    "kill": ("verbs", "kill", "Send a signal to a container's init."),
    "list": ("verbs", "list_", "List the containers made with create or run --detach."),
    "matrix": ("matrix", "matrix", "Run the fault catalogue on kernels x cgroup views x runtimes."),
    "minimize": ("minimize", "minimize", "Find the smallest config.json that fails for the same cause."),
    "pause": ("verbs", "pause", "Freeze a container."),
    "ps": ("verbs", "ps", "List the processes in a container."),
    "report": ("report", "report", "Make one page of results, or export their samples."),
    "reproduce": ("reproduce", "reproduce", "Make a failure of the catalogue happen, and prove its cause."),
    "resume": ("verbs", "resume", "Thaw a container."),
    "run": ("create", "run", "Create and start a container, wait for its end, delete it."),
    "runtimes": ("runtimes", "runtimes", "List the runtimes found on this host."),
    "start": ("verbs", "start", "Start a created container."),
    "state": ("verbs", "state", "Show a container's state."),
    "trace": ("trace", "trace", "Show where the milliseconds of a container's start go."),
}


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console command. Never returns: raises SystemExit with the status of the contract."""
    args = sys.argv[1:] if arguments is None else arguments
    if args == ["--version"]:  # nothing else need be loaded for it
        print(f"oci-harness {VERSION}")
        sys.exit(0)
    from harness.cli.group import run

    sys.exit(run(args, COMMANDS))
