"""Rules of diagnosis and the wrappers that layers put around error texts: TOML, read by harness/diagnosis/rules.py."""
