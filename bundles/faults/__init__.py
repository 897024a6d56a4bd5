"""The fault catalogue: one TOML file a fault."""
