"""Break one thing on purpose, see the runtime fail as the catalogue says, heal just that thing, see it run."""
