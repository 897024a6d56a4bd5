"""Drop the host's page cache, dentries and inodes, so that the next lifecycle starts cold."""

from __future__ import annotations

import os
from typing import Final

from harness.errors import HostError

DROP: Final = "/proc/sys/vm/drop_caches"  # Documentation/admin-guide/sysctl/vm.rst
BOTH: Final = "3"  # page cache, and dentries and inodes


def drop() -> None:
    """For the whole host; dirty pages are written out first. Raises HostError where that is not allowed."""
    os.sync()
    try:
        with open(DROP, "w") as file:
            file.write(BOTH)
    except OSError as error:
        raise HostError(
            f"the page cache cannot be dropped here ({DROP}: {error.strerror}); measure without --cold, "
            "or on a host whose /proc/sys may be written to"
        ) from None
