"""sexton-init beside tini, dumb-init and catatonit: every figure of one run. `python -m bench.init --help`."""
