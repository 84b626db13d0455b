"""Process trees for asyncio and trio: see sexton.spawn.aio. Needs anyio."""

from sexton.spawn.aio import Tree, check_call, check_output, run

__all__ = ["Tree", "check_call", "check_output", "run"]
