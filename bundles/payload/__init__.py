"""The static payload and its source."""
