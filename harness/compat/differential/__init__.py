"""The differential oracle: one config.json on two runtimes, and what each of them made of it."""
