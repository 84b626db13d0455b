"""sexton.spawn: trees from Python, each with real processes."""
