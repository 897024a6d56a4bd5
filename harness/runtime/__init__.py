"""OCI runtimes: which there are, how each is spoken to, and the containers they make."""
