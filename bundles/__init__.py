"""Recipes, the fault catalogue and the payload: data, found through importlib.resources."""
