"""Saved results: read, compared, exported, and made into one page. Statistics are those of harness/bench."""
