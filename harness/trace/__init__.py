"""Where the milliseconds of a container's start go."""
