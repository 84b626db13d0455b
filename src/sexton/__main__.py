"""`python -m sexton`."""

from sexton.cli import main

main()
