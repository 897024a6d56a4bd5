"""Drive OCI runtimes directly."""
