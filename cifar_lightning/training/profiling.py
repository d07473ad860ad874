"""A profiler that does nothing, faster than Lightning's."""

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.profilers import Profiler


class NoProfiler(Profiler):
    """Measures nothing, at no cost.

    Lightning enters about a hundred profiler contexts per step. Its own PassThroughProfiler creates a generator for
    each: 0.1 ms per step, where a small network's step takes 2 ms.
    """

    _context = nullcontext()

    def start(self, action_name: str) -> None:
        """Does nothing."""

    def stop(self, action_name: str) -> None:
        """Does nothing."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return self._context
