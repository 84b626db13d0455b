"""Process trees for asyncio and trio: see sexton.spawn.aio. Needs anyio."""

from sexton.spawn.aio import Tree, run

__all__ = ["Tree", "run"]
