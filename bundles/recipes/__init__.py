"""Named bundle descriptions."""
