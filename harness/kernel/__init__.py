"""The kernel as this package sees it: the shim, processes, mounts and namespaces."""
