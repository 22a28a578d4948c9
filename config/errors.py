"""The one error tree, split by how the caller must react.

Third-party exceptions are mapped to one of these once, at the edge where they occur.
Exit codes follow sysexits.h where it has a fitting one.
"""

from __future__ import annotations


class RegateError(Exception):
    """Root of every error that regate raises on purpose.

    :param message: what happened, in one sentence.
    :param hint: what the reader should do next (a command where there is one).
    """

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(RegateError):
    """A setting, file or argument is wrong; nothing was started. Exit 78."""

    exit_code = 78


class PoisonError(RegateError):
    """One input record is unusable; it goes to the dead letters and the stream goes on. Exit 65.

    :param reason: stable machine-readable code, for example ``not_json``.
    """

    exit_code = 65

    def __init__(self, message: str, *, reason: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class RetryableError(RegateError):
    """The outcome is unknown or the peer is away: drop state, recover, try again. Exit 75."""

    exit_code = 75


class FencedError(RegateError):
    """Another process owns this identity now; restarting would only fence it back. Exit 76."""

    exit_code = 76


class FatalError(RegateError):
    """An invariant is broken; going on could publish something wrong. Exit 70."""

    exit_code = 70
