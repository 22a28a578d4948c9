"""What every client of one cluster shares: where it is, how to log in, which topics exist."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient

from regate.config.errors import ConfigError, RetryableError
from regate.daemon.bus.kafka_errors import mapped

# What a deployment may say about security; anything else would override a rule that keeps exactly-once.
SECURITY_KEYS = frozenset(
    {
        "security_protocol",
        "ssl_context",
        "ssl_check_hostname",
        "ssl_cafile",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "ssl_crlfile",
        "ssl_ciphers",
        "sasl_mechanism",
        "sasl_plain_username",
        "sasl_plain_password",
        "sasl_kerberos_name",
        "sasl_kerberos_service_name",
        "sasl_kerberos_domain_name",
        "sasl_oauth_token_provider",
    }
)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. The defaults passed 372 kills and 10 broker deaths; tests shorten the group's."""

    request: float = 10.0
    block: float = 30.0
    session: float = 30.0  # a dead member's partitions are taken over after this
    heartbeat: float = 3.0
    max_poll_interval: float = 60.0
    transaction: float = 15.0  # how long a dead producer hides later records of its partitions
    delivery: float = 30.0  # must exceed the transaction's, else a batch expires inside a live transaction
    commit: float = 20.0  # below the shell's watchdog of 25 s, so that a hang becomes an error first
    metadata_age: float = 30.0  # how soon a grown topic is seen


class Cluster:
    """Connection settings of one cluster, and a memory of the topics that are known to exist."""

    def __init__(self, bootstrap_servers: str, security: Mapping[str, Any] | None, timeouts: Timeouts) -> None:
        unknown = set(security or {}) - SECURITY_KEYS
        if unknown:
            raise ConfigError(
                f"unknown security settings: {', '.join(sorted(unknown))}",
                hint=f"use {', '.join(sorted(SECURITY_KEYS))}",
            )
        self.bootstrap_servers = bootstrap_servers
        self.timeouts = timeouts
        self._security = dict(security or {})
        self._lock = threading.Lock()
        self._admin: Any = None
        self._known: set[str] = set()

    def settings(self) -> dict[str, Any]:
        """Return the settings of every client of this cluster."""
        return {
            "bootstrap_servers": [server.strip() for server in self.bootstrap_servers.split(",")],
            "request_timeout_ms": int(self.timeouts.request * 1000),
            "bootstrap_timeout_ms": int(self.timeouts.block * 1000),
            "retry_backoff_ms": 10,  # a transaction takes 35 ms with it, 130 at the default
            "reconnect_backoff_max_ms": 1000,  # broker back -> daemon back in 2 to 6 s instead of 3 to 36
            "metadata_max_age_ms": int(self.timeouts.metadata_age * 1000),
            **self._security,
        }

    def streaming_settings(self) -> dict[str, Any]:
        """Return the settings of the clients that carry records, if there is somebody to talk to."""
        self.require_listener()
        return {**self.settings(), "metrics_enabled": False}  # nobody reads them, and each record pays

    def require_listener(self) -> None:
        """Refuse to construct a client when nobody listens: one that cannot bootstrap leaves a thread and sockets.

        :raises RetryableError: when no bootstrap server takes a connection.
        """
        reasons = []
        for server in self.settings()["bootstrap_servers"]:
            host, _, port = server.rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=self.timeouts.request).close()
            except (OSError, ValueError) as error:
                reasons.append(f"{server}: {error}")
            else:
                return
        raise RetryableError(
            f"no broker answers: {'; '.join(reasons)}", hint="run: regate kafka status, or see bus.bootstrap_servers"
        )

    def admin(self) -> Any:
        """Return a new administration client."""
        self.require_listener()
        settings = self.settings()
        with mapped("connect to the broker"):
            return KafkaAdminClient(**settings)

    def require(self, topics: Iterable[str]) -> None:
        """Refuse topics that do not exist; nothing here creates one by accident.

        :raises ConfigError: naming the missing topics.
        """
        with self._lock:
            asked = [topic for topic in topics if topic not in self._known]
            if not asked:
                return
            if self._admin is None:
                self._admin = self.admin()
            with mapped("look up topics"):
                found = self._admin.describe_topics(asked)
            self._known |= {topic["name"] for topic in found if topic["error_code"] == 0}
            missing = [topic for topic in asked if topic not in self._known]
        if missing:
            raise ConfigError(f"these topics do not exist: {', '.join(missing)}", hint="run: regate topics create")

    def forget(self, topics: Iterable[str]) -> None:
        """Ask again next time (a topic was deleted)."""
        with self._lock:
            self._known -= set(topics)

    def close(self) -> None:
        """Release the connection."""
        with self._lock:
            admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()
