"""The version, in a module of its own so that `--version` need not import anything else."""

VERSION = "0.1.0"
