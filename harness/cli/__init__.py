"""The command line: only here is anything printed, or the process ended."""
