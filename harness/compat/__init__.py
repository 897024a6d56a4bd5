"""What works on which kernel, cgroup layout and runtime."""
