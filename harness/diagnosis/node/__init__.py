"""What on a node can break containers, looked up on the node itself or in a copy of its files."""
