"""A bus that dies: any bus, wrapped so that the n-th call kills the process that made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """What SIGKILL looks like from inside a simulation: nothing after this line runs."""


class Fuse:
    """Counts down on every call of a wrapped part; at zero the call dies, before or after it took effect."""

    def __init__(self, calls: int | None = None, *, after: bool = False) -> None:
        self.calls, self.after, self.seen = calls, after, 0

    def burn(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.seen += 1
        dies = self.calls is not None and self.seen == self.calls
        if dies and not self.after:
            raise Killed
        result = call(*args, **kwargs)
        if dies:
            raise Killed
        return result


class Freeze(Fuse):
    """Stops the process before its next commit (as SIGSTOP would), lets the world go on, then goes on itself."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] | None = meanwhile

    def burn(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if getattr(call, "__name__", "") == "commit" and self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return super().burn(call, *args, **kwargs)


class Wrapped:
    """Any part of a bus whose methods go through the fuse."""

    def __init__(self, part: Any, fuse: Fuse) -> None:
        self._part, self._fuse = part, fuse

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        if not callable(value):
            return value
        return lambda *args, **kwargs: self._fuse.burn(value, *args, **kwargs)


class MortalBus:
    """A bus whose consumer and producer share one fuse."""

    def __init__(self, bus: Any, fuse: Fuse) -> None:
        self._bus, self.fuse = bus, fuse

    def consumer(self, group: str, instance_id: str | None = None) -> Any:
        return Wrapped(self._bus.consumer(group, instance_id), self.fuse)

    def producer(self, transactional_id: str) -> Any:
        return Wrapped(self._bus.producer(transactional_id), self.fuse)

    def reader(self) -> Any:
        return self._bus.reader()

    def writer(self) -> Any:
        return self._bus.writer()

    def admin(self) -> Any:
        return self._bus.admin()
