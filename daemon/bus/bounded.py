"""Calls that may hang for ever get a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from regate.config.errors import RetryableError

T = TypeVar("T")


def bounded(work: Callable[[], T], seconds: float, what: str) -> T:
    """Run ``work`` in a thread and return its result, or give up on it.

    kafka-python's calls around a commit take no timeout and hang when the connection drops at the wrong
    moment. The thread of a call that was given up stays behind as a daemon; the caller drops the client.

    :raises RetryableError: when ``work`` has not ended in time; whatever ``work`` raises otherwise.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  (handed to the caller's thread, whatever it is)
            errors.append(error)

    thread = threading.Thread(target=run, name=f"regate-{what}", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise RetryableError(f"{what} did not end in {seconds:g} s", hint="the broker is away or frozen; recover")
    return results[0]
