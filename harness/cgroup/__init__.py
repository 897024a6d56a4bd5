"""cgroups: which are mounted, what their files say, and those that we make ourselves."""
