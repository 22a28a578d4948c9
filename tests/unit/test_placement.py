"""Placement: the same partition as every other Kafka client."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import murmur2 as reference

from regate.daemon.bus.placement import murmur2, murmur2_partition, partition_of

# From Kafka's own UtilsTest.testMurmur2.
GOLDEN = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("data", "expected"), GOLDEN.items())
def test_murmur2_is_that_of_the_java_client(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected & 0xFFFFFFFF


@given(st.binary(max_size=70), st.integers(1, 1000))
def test_murmur2_agrees_with_kafka_python(data: bytes, partitions: int) -> None:
    assert murmur2(data) == reference(data) & 0xFFFFFFFF
    assert murmur2_partition(data, partitions) == (reference(data) & 0x7FFFFFFF) % partitions


def test_models_spread_over_partitions() -> None:
    counts = Counter(partition_of(f"tenant/model-{n}", 6) for n in range(3000))
    assert set(counts) == set(range(6))
    assert min(counts.values()) > 400
    assert partition_of("tenant/größe", 6) == murmur2_partition("tenant/größe".encode(), 6)
