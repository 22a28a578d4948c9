"""kafka-python's errors, mapped once to regate's tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import errors as kafka_errors

from regate.config.errors import ConfigError, FatalError, FencedError, RegateError, RetryableError

# Another process owns the identity, the epoch or the generation.
FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.FencedInstanceIdError,
    kafka_errors.FencedMemberEpochError,
    kafka_errors.StaleMemberEpochError,
    kafka_errors.InvalidProducerIdMappingError,
    kafka_errors.CommitFailedError,  # kafka-python's own word for a stale generation or member
)
# Trying again changes nothing until a person acts; each class says which reason it is.
REFUSED = {
    kafka_errors.SaslAuthenticationFailedError: "the broker refused the credentials",
    kafka_errors.UnsupportedSaslMechanismError: "the broker does not know this SASL mechanism",
    kafka_errors.TopicAuthorizationFailedError: "an ACL denies access to a topic",
    kafka_errors.GroupAuthorizationFailedError: "an ACL denies access to a group",
    kafka_errors.TransactionalIdAuthorizationFailedError: "an ACL denies the transactional id",
    kafka_errors.ClusterAuthorizationFailedError: "an ACL denies access to the cluster",
    kafka_errors.InvalidTopicError: "the topic name is not valid",
    kafka_errors.InvalidReplicationFactorError: "the cluster has too few brokers for this replication factor",
    kafka_errors.InvalidPartitionsError: "the number of partitions is not valid",
    kafka_errors.InvalidConfigurationError: "the broker refused a topic setting",
    kafka_errors.InvalidSessionTimeoutError: "the broker refused the session timeout",
    kafka_errors.KafkaConfigurationError: "the client refused a setting",
}
TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and everything it carries: kafka-python wraps a cause as an argument."""
    while error is not None:
        yield error
        for part in error.args:
            if isinstance(part, BaseException):
                yield part
            elif isinstance(part, type) and issubclass(part, kafka_errors.KafkaError):
                yield part()
        error = error.__cause__ or error.__context__


def translated(error: BaseException, what: str) -> RegateError:
    """Return the error of regate's tree that says how to react."""
    for cause in _causes(error):
        if isinstance(cause, RegateError):
            return cause
        said = f"{what}: {type(cause).__name__}: {cause}"
        if isinstance(cause, FENCED):
            return FencedError(said, hint="another process owns this identity or these partitions now")
        if isinstance(cause, TOO_LARGE):
            return FatalError(said, hint="see max.message.bytes of the topic: regate topics list")
        for kind, reason in REFUSED.items():
            if isinstance(cause, kind):
                return ConfigError(f"{reason}: {said}", hint="run: regate topics check")
    return RetryableError(f"{what}: {type(error).__name__}: {error}", hint="the outcome is unknown; recover")


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn every error of the client inside the block into one of regate's tree."""
    try:
        yield
    except RegateError:
        raise
    except (kafka_errors.KafkaError, OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise translated(error, what) from error
