"""`sexton up` beside supervisord, s6 and circus: every figure of one run. `python -m bench.supervise --help`."""
