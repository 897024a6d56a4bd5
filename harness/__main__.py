"""`python -m harness`: the same as `oci-harness`."""

from harness.cli.entry import main

main()
