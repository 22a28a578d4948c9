"""The group coordinator in memory: eager rebalances, range assignment, static members, sessions.

A change of membership opens a rebalance. Every member notices at its next poll, gives up its partitions and
waits; when all have, the generation rises and each gets its range. A commit under an older generation is fenced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from regate.config.errors import FencedError
from regate.daemon.bus.port import GroupMetadata, TopicPartition


def range_assignment(members: Sequence[Member], counts: Mapping[str, int]) -> dict[str, frozenset[TopicPartition]]:
    """Return member id -> partitions: per topic a contiguous range each, the first members one more.

    Static members come first, by instance id, so that a restart changes nothing.
    """
    shares: dict[str, set[TopicPartition]] = {member.member_id: set() for member in members}
    for topic in sorted({topic for member in members for topic in member.topics}):
        takers = sorted((m for m in members if topic in m.topics), key=Member.rank)
        share, extra = divmod(counts.get(topic, 0), len(takers))
        first = 0
        for place, member in enumerate(takers):
            size = share + (place < extra)
            shares[member.member_id] |= {TopicPartition(topic, p) for p in range(first, first + size)}
            first += size
    return {member_id: frozenset(share) for member_id, share in shares.items()}


@dataclass(eq=False)
class Member:
    """One member as the coordinator sees it."""

    member_id: str
    instance_id: str | None
    topics: frozenset[str]
    polled: float  # when it last polled
    gone: float | None = None  # when its heartbeats stopped
    joined: bool = True  # it waits for the generation to come
    assigned: frozenset[TopicPartition] = frozenset()

    def rank(self) -> tuple[bool, str, str]:
        """Return the sort key of the range assignor."""
        return (self.instance_id is None, self.instance_id or "", self.member_id)


@dataclass(eq=False)
class Group:
    """One consumer group.

    :param session_seconds: a member without heartbeats is removed after this.
    :param max_poll_seconds: a member that does not poll is removed after this.
    """

    name: str
    session_seconds: float
    max_poll_seconds: float
    generation: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # partitions of each topic at the last assignment
    rebalancing: bool = False
    _serial: int = 0

    def join(self, instance_id: str | None, topics: frozenset[str], now: float) -> Member:
        """Add a member. A known instance takes its old place over, without a rebalance, and fences the old one."""
        self._serial += 1
        member = Member(f"{self.name}-{self._serial:06d}", instance_id, topics, polled=now)
        old = next((m for m in self.members.values() if instance_id is not None and m.instance_id == instance_id), None)
        if old is not None:
            del self.members[old.member_id]
        self.members[member.member_id] = member
        if old is not None and old.topics == topics and not self.rebalancing:
            member.joined, member.assigned = False, old.assigned
        else:
            self.open_rebalance()
            member.joined = True
        return member

    def leave(self, member: Member) -> None:
        """Remove a member at once (dynamic members only; a static one is waited for)."""
        if self.members.pop(member.member_id, None) is not None:
            self.open_rebalance()

    def open_rebalance(self) -> None:
        """Ask every member to join again."""
        self.rebalancing = True
        for member in self.members.values():
            member.joined = False

    def expire(self, now: float) -> None:
        """Remove members whose heartbeats or polls stopped."""
        for member in list(self.members.values()):
            silent = member.gone is not None and now - member.gone >= self.session_seconds
            if silent or now - member.polled >= self.max_poll_seconds:
                self.leave(member)

    def notice_growth(self, counts: Mapping[str, int]) -> None:
        """Open a rebalance when a subscribed topic has other partitions than at the last assignment."""
        if not self.rebalancing and any(counts.get(topic, 0) != known for topic, known in self.counts.items()):
            self.open_rebalance()

    def try_assign(self, counts: Mapping[str, int]) -> bool:
        """End the rebalance when every member has joined; return whether it ended now."""
        if not self.rebalancing or not self.members or not all(m.joined for m in self.members.values()):
            return False
        members = list(self.members.values())
        shares = range_assignment(members, counts)
        for member in members:
            member.assigned, member.joined = shares[member.member_id], False
        self.counts = {topic: counts.get(topic, 0) for member in members for topic in member.topics}
        self.generation += 1
        self.rebalancing = False
        return True

    def check(self, metadata: GroupMetadata) -> None:
        """Refuse the offsets of a member that is not one any more.

        :raises FencedError: stale generation, unknown member, or an instance that another process took over.
        """
        member = self.members.get(metadata.member_id)
        if member is None:
            raise FencedError(
                f"{metadata.member_id} is no member of {self.name}", hint="the partitions have a new owner"
            )
        if metadata.generation != self.generation:
            raise FencedError(
                f"generation {metadata.generation} of {self.name} is over, it is {self.generation} now",
                hint="take the changes and recover",
            )
