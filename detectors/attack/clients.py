"""Client memory: the last eight distinct queries of each client in fixed memory, and what a new one is to them.

Nothing grows with traffic: a client takes 509 bytes at most, and when the table is full the client that was asked for
least gives way (SpaceSaving: Metwally, Agrawal, El Abbadi 2005), those not seen for the time to live first. A query
that equals one of the eight is a retry: it is no evidence and does not enter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.ongoing import QUIET_US
from regate.detectors.attack.queries import PARTS, WIDTH, ByteArray, Queries, SketchArray
from regate.detectors.columns import BoolArray, FloatArray, HashArray, IntArray

RING = 8
FRESH, EDIT, NEAR = 0, 1, 2
# A query that differs from an earlier one in at most so many blocks of features is an edit of it.
EDITED_BLOCKS = 2
# A direction is told from steps that are longer than this, in steps of the sketch.
LEAST_STEP = 6.0
LINE_FLOOR = 3e-4
CAPACITY = 100_000
TTL_US = 24 * 3_600_000_000
# What a slot holds of each remembered query, and besides.
RINGS = ("sketch", "blocks", "off", "label", "root", "size", "turns")
ARRAYS = (*RINGS, "client", "last_us", "seen", "distinct", "sum", "told", "since_us", "since_count")
# What only some tables keep: who asked each remembered query, or what the last query is told by more finely.
WHO, PARTS_OF_LAST = "who", "parts"
_SLOTS_AT_ONCE = 1024
_ROOTS = 1 << 16
# Bytes of a word: the lowest bit of each, and what brings these together in the highest byte.
_LOWEST, _GATHERED = np.uint64(0x0101010101010101), np.uint64(0x0102040810204080)
_MOST_COUNTED = 255  # sizes and turns of trees are bytes


@dataclass(frozen=True, slots=True)
class _Groups:
    """The rows of a slice by owner."""

    slot: IntArray  # [owners]
    order: IntArray  # rows, owner by owner, each owner's in order
    start: IntArray  # [owners] in ``order``
    count: IntArray  # [owners]
    before_us: IntArray  # [owners] when it was seen last before the slice; its first row's time if it is new


@dataclass(slots=True)
class _Chain:
    """Each client's remembered queries and then its new ones, clients one after the other."""

    slot: IntArray  # [clients]
    owner: IntArray  # [rows] which client
    carried: BoolArray
    row: IntArray  # in the slice, -1 of carried ones
    start: IntArray  # [clients] first row
    made: IntArray  # [clients] distinct queries before
    sketch: SketchArray
    blocks: ByteArray
    off: ByteArray
    label: ByteArray
    who: IntArray  # zeros where the table does not keep it
    parts: ByteArray  # of the last carried row and of new ones; no rows where the table does not keep it
    root: IntArray
    size: IntArray
    turns: IntArray
    kept: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # rows that are no retries


@dataclass(frozen=True, slots=True)
class Steps:
    """What memory says of the queries of a slice that are no retries: one entry each, clients one after the other."""

    row: IntArray  # in the slice
    slot: IntArray
    first: BoolArray  # whether it is the first entry of its client
    kind: IntArray  # FRESH, EDIT, NEAR
    distance: FloatArray  # to its parent, in steps of the sketch; infinite for FRESH
    alike: IntArray  # parts that are the same as in the query before; 0 where there is none
    changed_off: FloatArray  # weight off the lattice within changed blocks
    changed_new: FloatArray  # the same, less what its parent had there
    tree: IntArray  # size of its tree with it, at most 255
    turns: IntArray  # edits of its tree with it that turned: see `_turned`
    spread: FloatArray  # of an edit that turned: distance to the farthest remembered of its tree; else infinite
    flip: BoolArray  # its answer is not its parent's
    line: FloatArray  # how straight on it goes from the last step
    changed: IntArray  # blocks in which it differs from the remembered query that it shares most with, at most 16
    own: IntArray  # how many of the remembered queries the same client asked, where the table keeps who did
    number: IntArray  # how many distinct queries its owner had asked with it
    behind: IntArray  # how many are remembered before it, at most 8
    chain: _Chain
    place: IntArray  # rows of the chain: itself
    returns: IntArray  # [rows of the slice] how often its owner had come back by then after a quiet time

    def remembered(self, entry: int) -> IntArray:
        """Return the rows of the chain that are remembered when an entry has been taken, itself the last."""
        kept = self.chain.kept
        last = int(np.searchsorted(kept, self.place[entry]))
        return kept[last - int(self.behind[entry]) : last + 1][-RING:]


@dataclass(slots=True)
class Clients:
    """The table. Arrays have a row for each slot in use or free."""

    capacity: int = CAPACITY
    ttl_us: int = TTL_US
    keeps: str = PARTS_OF_LAST  # besides what all tables hold: `WHO`, `PARTS_OF_LAST` or nothing
    slots: dict[int, int] = field(default_factory=dict)
    sketch: SketchArray = field(default_factory=lambda: np.zeros((0, RING, WIDTH), dtype=np.int8))
    blocks: ByteArray = field(default_factory=lambda: np.zeros((0, RING, WIDTH), dtype=np.uint8))
    off: ByteArray = field(default_factory=lambda: np.zeros((0, RING, WIDTH), dtype=np.uint8))
    label: ByteArray = field(default_factory=lambda: np.zeros((0, RING), dtype=np.uint8))
    who: IntArray = field(default_factory=lambda: np.zeros((0, RING), dtype=np.uint32))  # half of the client's hash
    parts: ByteArray = field(default_factory=lambda: np.zeros((0, PARTS), dtype=np.uint8))  # of the last query
    root: IntArray = field(default_factory=lambda: np.zeros((0, RING), dtype=np.uint16))
    size: IntArray = field(default_factory=lambda: np.zeros((0, RING), dtype=np.uint8))
    turns: IntArray = field(default_factory=lambda: np.zeros((0, RING), dtype=np.uint8))
    client: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    last_us: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    seen: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # queries, retries too
    distinct: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sum: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # evidence, in 2^-20 nats
    told: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))  # until its evidence is back at 0
    since_us: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # when evidence left 0
    since_count: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # distinct queries since then
    evicted: int = 0

    @property
    def arrays(self) -> tuple[str, ...]:
        """Return the names of the arrays that have a row for each slot."""
        return (*ARRAYS, self.keeps) if self.keeps else ARRAYS

    def take(self, queries: Queries, tau: float, owner: HashArray | None = None) -> Steps:
        """Take queries in order; return what memory says of them.

        :param queries: of at most half as many owners as the table has room for.
        :param owner: whose memory each query belongs to, never 0; by default its client's.
        """
        groups = self._admitted(queries.client if owner is None else owner, queries.time_us)
        chain = _chain(self, groups, queries)
        chain.kept = _distinct(chain)
        steps = _steps(chain, chain.kept, tau, _returned(groups, queries.time_us))
        self._remember(chain, chain.kept)
        return steps

    def _admitted(self, client: HashArray, time_us: IntArray) -> _Groups:
        """Return the slots of all owners, making room for those that are new."""
        order = np.argsort(client, kind="stable")
        own = client[order]
        start = np.flatnonzero(np.r_[True, own[1:] != own[:-1]]) if len(own) else np.zeros(0, dtype=np.int64)
        count = np.diff(np.r_[start, len(own)])
        ids, first = own[start], order[start]
        place = np.array([self.slots.get(one, -1) for one in ids.tolist()], dtype=np.int64)
        known = place >= 0
        before = time_us[first]
        before[known] = self.last_us[place[known]]
        self.seen[place[known]] += count[known]
        new = np.flatnonzero(~known)
        new = new[np.argsort(first[new], kind="stable")]  # in the order in which they came
        if new.size:
            place[new] = self._room(new.size, place[known], int(time_us.max()))
            for index in new.tolist():
                at = int(place[index])
                self.slots[int(ids[index])] = at
                self.client[at] = ids[index]
            taken = place[new]
            self.seen[taken] += count[new]
            self.distinct[taken] = 0
            self.sum[taken] = 0
            self.told[taken] = False
            self.since_count[taken] = 0
        self.last_us[place] = np.maximum(self.last_us[place], time_us[order[start + count - 1]])
        return _Groups(place, order, start, count, before)

    def _room(self, wanted: int, busy: IntArray, now_us: int) -> IntArray:
        """Return so many free slots: unused ones, then those past their time, then the least used."""
        used = len(self.slots)
        free = min(wanted, self.capacity - used)
        if used + free > len(self.seen):
            grow(self, self.arrays, min(self.capacity, max(used + free, 2 * len(self.seen), _SLOTS_AT_ONCE)))
        found = np.arange(used, used + free)
        missing = wanted - free
        if missing <= 0:
            return found
        score = self.seen[:used].astype(np.float64)
        score[self.last_us[:used] < now_us - self.ttl_us] = -1.0
        score[busy] = np.inf
        victims = np.sort(np.argpartition(score, missing - 1)[:missing])
        for at in victims.tolist():
            del self.slots[int(self.client[at])]
        self.evicted += missing
        expired = score[victims] < 0
        self.seen[victims[expired]] = 0  # who took the place of a busy client inherits its count, as an upper bound
        return np.concatenate([found, victims])

    def _remember(self, chain: _Chain, kept: IntArray) -> None:
        """Write the last distinct queries of each client of a chain back into its ring."""
        owner = chain.owner[kept]
        count = np.bincount(owner, minlength=len(chain.slot))
        ends = np.cumsum(count)
        behind = ends[owner] - 1 - np.arange(len(kept))
        keep = np.flatnonzero(behind < RING)
        at, who = kept[keep], chain.slot[owner[keep]]
        position = np.minimum(count, RING)[owner[keep]] - 1 - behind[keep]
        for name in (*RINGS, WHO) if self.keeps == WHO else RINGS:
            getattr(self, name)[who, position] = getattr(chain, name)[at]
        if self.keeps == PARTS_OF_LAST:
            newest = ends - 1
            self.parts[chain.slot] = chain.parts[kept[newest]]
        fresh = np.bincount(owner[~chain.carried[kept]], minlength=len(chain.slot))
        self.distinct[chain.slot] += fresh


def grow(holder: object, names: tuple[str, ...], size: int) -> None:
    """Give arrays that have a row for each slot so many rows, new ones of zeros; never fewer than they have."""
    for name in names:
        old = getattr(holder, name)
        if size > len(old):
            more = np.zeros((size - len(old), *old.shape[1:]), dtype=old.dtype)
            setattr(holder, name, np.concatenate([old, more]))


def _returned(groups: _Groups, time_us: IntArray) -> IntArray:
    """Return how often the owner of each row has come back by then after a quiet time without any."""
    times = time_us[groups.order]
    before = np.r_[times[:1], times[:-1]]
    before[groups.start] = groups.before_us
    back = times - before > QUIET_US
    found = np.zeros(len(times), dtype=np.int64)
    if back.any():
        total = np.cumsum(back)
        found[groups.order] = total - np.repeat((total - back)[groups.start], groups.count)
    return found


def _chain(table: Clients, groups: _Groups, queries: Queries) -> _Chain:
    own, first, count, order = groups.slot, groups.start, groups.count, groups.order
    filled = np.minimum(table.distinct[own], RING)
    length = filled + count
    start = np.cumsum(length) - length
    owner = np.repeat(np.arange(len(own)), length)
    within = np.arange(len(owner)) - start[owner]
    carried = within < filled[owner]
    row = np.full(len(owner), -1, dtype=np.int64)
    new = np.flatnonzero(~carried)
    row[new] = order[first[owner[new]] + within[new] - filled[owner[new]]]
    old = np.flatnonzero(carried)
    made: dict[str, np.ndarray] = {}
    labels = (queries.label >> np.uint64(56)).astype(np.uint8)
    labels[queries.label == 0] = 0
    fresh: dict[str, np.ndarray] = {
        "sketch": queries.sketch,
        "blocks": queries.blocks,
        "off": queries.off,
        "label": labels,
    }
    made["who"] = np.zeros(len(owner), dtype=np.uint32)
    if table.keeps == WHO:
        fresh["who"] = queries.client.astype(np.uint32)  # the lower half
    for name, given in fresh.items():
        stored = getattr(table, name)
        joined = np.empty((len(owner), *stored.shape[2:]), dtype=stored.dtype)
        joined[new] = given[row[new]]
        joined[old] = stored[own[owner[old]], within[old]]
        made[name] = joined
    for name in ("root", "size", "turns"):
        made[name] = np.zeros(len(owner), dtype=np.int64)
        made[name][old] = getattr(table, name)[own[owner[old]], within[old]]
    made["parts"] = np.zeros((0, PARTS), dtype=np.uint8)
    if table.keeps == PARTS_OF_LAST:
        parts = made["parts"] = np.zeros((len(owner), PARTS), dtype=np.uint8)
        known = filled > 0
        parts[(start + filled - 1)[known]] = table.parts[own[known]]
        parts[new] = queries.parts[row[new]]
    return _Chain(own, owner, carried, row, start, table.distinct[own], **made)


def _distinct(chain: _Chain) -> IntArray:
    """Return the rows that equal none of the eight distinct ones before them.

    Whether a row is kept depends on earlier ones only, so the rule's fixed point is what one by one would give.
    """
    halves = np.ascontiguousarray(chain.blocks).view(np.uint64)
    word = scrambled(halves[:, 0]) ^ halves[:, 1]  # one number a query: comparing two costs three times as much
    new = np.flatnonzero(~chain.carried)
    kept = np.ones(len(chain.owner), dtype=np.bool_)
    while True:
        index = np.flatnonzero(kept)
        own = chain.owner[new]
        before: IntArray = np.cumsum(kept) - kept
        mine, place, first = word[new], before[new], before[chain.start[own]]
        same = np.zeros(len(new), dtype=np.bool_)
        for back in range(1, RING + 1):
            at = place - back
            same |= (at >= first) & (mine == word[index[np.maximum(at, 0)]])
        changed = kept[new] == same
        if not changed.any():
            return index
        kept[new] = ~same
        # Owners know nothing of each other: those of whom nothing changed are done.
        moved = np.zeros(len(chain.slot), dtype=np.bool_)
        moved[own[changed]] = True
        new = new[moved[own]]


def _steps(chain: _Chain, kept: IntArray, tau: float, returns: IntArray) -> Steps:
    owner = chain.owner[kept]
    first = np.searchsorted(owner, np.arange(len(chain.slot)))[owner]
    new = np.flatnonzero(~chain.carried[kept])
    rows = kept[new]
    back = np.arange(1, RING + 1)[:, None]
    there = new - back >= first[new]
    at = np.where(there, new - back, new)  # [8, new] places in ``kept``
    mask = _different(chain.blocks[kept], new, at)
    changed = np.where(there, np.bitwise_count(mask).astype(np.int64), WIDTH + 1)
    apart = np.where(there, _apart(chain.sketch[kept], new, at), np.inf)
    asker = chain.who[kept]
    own = (there & (asker[new] == asker[at]) & (asker[new] != 0)).sum(axis=0)
    column = np.arange(len(new))
    fewest, nearest = changed.argmin(axis=0), apart.argmin(axis=0)
    edit = changed[fewest, column] <= EDITED_BLOCKS
    parent_back = np.where(edit, fewest, nearest)
    distance = np.sqrt(apart[parent_back, column])
    near = ~edit & (distance < tau)
    kind = np.where(edit, EDIT, np.where(near, NEAR, FRESH))
    child = kind != FRESH
    parent = np.where(child, at[parent_back, column], new)
    pointer = _rooted(chain, kept, new, parent)
    mates = there & (pointer[at] == pointer[new])
    turned = edit & _turned(mask, mates)
    tree, turns = _trees(chain, kept, new, pointer, turned)
    spread = np.sqrt(np.where(mates, apart, 0.0).max(axis=0, initial=0.0))
    different = np.where(child, mask[parent_back, column], np.uint16(0))
    off, before = chain.off[rows], chain.off[kept[parent]]
    return Steps(
        row=chain.row[rows],
        slot=chain.slot[owner[new]],
        first=np.r_[True, owner[new][1:] != owner[new][:-1]] if len(new) else np.zeros(0, dtype=np.bool_),
        kind=kind,
        distance=np.where(child, distance, np.inf),
        alike=_alike(chain, kept, new, there[0]),
        changed_off=_within(off, different),
        changed_new=_within(np.maximum(off, before) - before, different),
        tree=tree,
        turns=turns,
        spread=np.where(turned, spread, np.inf),
        flip=child & (chain.label[rows] != chain.label[kept[parent]]),
        line=_lines(chain, kept, new, first, changed[0]),
        changed=np.minimum(changed[fewest, column], WIDTH),
        own=own,
        number=_made(chain, owner[new]),
        behind=there.sum(axis=0),
        chain=chain,
        place=rows,
        returns=returns,
    )


def _different(blocks: ByteArray, new: IntArray, at: IntArray) -> npt.NDArray[np.uint16]:
    """Return which of 16 blocks differ, as bits, eight blocks (one word) at a time."""
    found = np.zeros(at.shape, dtype=np.uint16)
    words = np.ascontiguousarray(blocks).view(np.uint64)
    for half in (0, 1):
        word = np.ascontiguousarray(words[:, half])
        apart = word[at] ^ word[new]
        for shift in (4, 2, 1):  # a bit set in a byte sets its lowest
            apart |= apart >> np.uint64(shift)
        apart &= _LOWEST
        apart *= _GATHERED  # the eight lowest bits, side by side in the highest byte
        found |= (apart >> np.uint64(56)).astype(np.uint16) << np.uint16(8 * half)
    return found


def _alike(chain: _Chain, kept: IntArray, new: IntArray, there: BoolArray) -> IntArray:
    """Return how many parts are the same as in the query before."""
    if not len(chain.parts):
        return np.zeros(len(new), dtype=np.int64)
    same = chain.parts[kept[new]] == chain.parts[kept[new - there]]
    return np.where(there, same.sum(axis=1), 0)


def _apart(sketch: SketchArray, new: IntArray, at: IntArray) -> FloatArray:
    """Return squared distances in steps; whole numbers below 2^24 are exact in single precision."""
    single = sketch.astype(np.float32)
    difference = single[at] - single[new]
    return np.asarray(np.einsum("bnk,bnk->bn", difference, difference).astype(np.float64))


def _turned(mask: npt.NDArray[np.uint16], mates: BoolArray) -> BoolArray:
    """Return which edits differ from the remembered ones of their tree in more blocks than one edit changes.

    Who sweeps a value, however long, changes the same blocks again and again and never turns; who tries one feature
    after the other does at nearly every query.
    """
    together = np.bitwise_or.reduce(np.where(mates, mask, np.uint16(0)), axis=0)
    return np.asarray(np.bitwise_count(together) > EDITED_BLOCKS)


def _within(off: ByteArray, different: npt.NDArray[np.uint16]) -> FloatArray:
    """Return the weight off the lattice within some blocks."""
    bits = (different[:, None] >> np.arange(WIDTH, dtype=np.uint16)) & np.uint16(1)
    return np.asarray(np.einsum("nb,nb->n", off.astype(np.int64), bits.astype(np.int64)) / 2.0)


def _rooted(chain: _Chain, kept: IntArray, new: IntArray, parent: IntArray) -> IntArray:
    """Return for each kept row one that stands for its tree, by pointer jumping."""
    pointer = np.arange(len(kept))
    old = np.flatnonzero(chain.carried[kept])
    if old.size:  # remembered members of one tree stand for it together
        named = chain.owner[kept[old]] * _ROOTS + chain.root[kept[old]]
        _, first, inverse = np.unique(named, return_index=True, return_inverse=True)
        pointer[old] = old[first[inverse]]
    pointer[new] = parent
    while True:
        again = pointer[pointer]
        if np.array_equal(again, pointer):
            return pointer
        pointer = again


def _trees(
    chain: _Chain, kept: IntArray, new: IntArray, pointer: IntArray, turned: BoolArray
) -> tuple[IntArray, IntArray]:
    """Return size and turns of each new row's tree with it; carried trees go on counting."""
    old = np.flatnonzero(chain.carried[kept])
    order = np.argsort(pointer[new], kind="stable")
    group = pointer[new][order]
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]]) if len(new) else np.zeros(0, dtype=np.int64)
    length = np.diff(np.r_[starts, len(new)])
    found = []
    for name, more in (("size", np.ones(len(new), dtype=np.int64)), ("turns", turned.astype(np.int64))):
        base = np.zeros(len(kept), dtype=np.int64)
        np.maximum.at(base, pointer[old], getattr(chain, name)[kept[old]])
        total = np.cumsum(more[order])
        counted = np.empty(len(new), dtype=np.int64)
        counted[order] = base[group] + total - np.repeat(total[starts] - more[order][starts], length)
        found.append(np.minimum(counted, _MOST_COUNTED))
        getattr(chain, name)[kept[new]] = found[-1]
    # A tree is named by how many distinct queries its client had made when it began.
    number = np.empty(len(kept), dtype=np.int64)
    number[old] = chain.root[kept[old]]
    number[new] = _numbers(chain, kept, new)
    chain.root[kept[new]] = number[pointer[new]]
    return found[0], found[1]


def _numbers(chain: _Chain, kept: IntArray, new: IntArray) -> IntArray:
    """Return numbers that no remembered tree of the same client has."""
    return (_made(chain, chain.owner[kept[new]]) - 1) % _ROOTS  # they go round, and only eight are remembered


def _made(chain: _Chain, owner: IntArray) -> IntArray:
    """Return how many distinct queries each owner had made with each of its new ones."""
    return np.asarray(chain.made[owner] + np.arange(len(owner)) - np.searchsorted(owner, owner) + 1)


def _lines(chain: _Chain, kept: IntArray, new: IntArray, first: IntArray, changed: IntArray) -> FloatArray:
    """Return -ln(1 - cos^2) of the last two steps; 0 unless both are long and the last one changes many blocks."""
    told = np.flatnonzero((new - 2 >= first[new]) & (changed > EDITED_BLOCKS))
    found = np.zeros(len(new))
    at = new[told]
    here, one, two = (chain.sketch[kept[at - back]].astype(np.float64) for back in range(3))
    last, before = here - one, one - two
    long, longer = (last * last).sum(axis=1), (before * before).sum(axis=1)
    far = (long > LEAST_STEP**2) & (longer > LEAST_STEP**2)
    cosine = np.square((last * before).sum(axis=1)) / np.maximum(long * longer, 1e-9)
    found[told] = np.where(far, -np.log(np.maximum(1.0 - cosine, 0.0) + LINE_FLOOR), 0.0)
    return found
