"""Measure lifecycles of one or more runtimes, and say what the figures can bear."""
