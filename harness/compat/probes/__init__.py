"""What this host lets runtimes do, found by doing it: never inferred from a version or a configuration file."""

from harness.compat.probes.host import Probed, probe_host

__all__ = ["Probed", "probe_host"]
