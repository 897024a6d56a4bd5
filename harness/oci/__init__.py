"""The OCI runtime-spec as values: config.json, state, features, recipes, and what is wrong with them."""
