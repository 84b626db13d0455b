"""The production incidents, replayed with the real software: as it was, and with sexton.

`.venv/bin/python -m incidents 2` replays number 2 and prints what it counted; without a number, all of them. It wants
root, podman, runc, node and npm, and no network. Each folder's README.md tells its story.
"""
