"""64-bit hashes of identifiers, a whole column at once; the same on every platform, encoding and batch.

Definition, over the UTF-8 bytes of an identifier of at most 64 bytes, zero-padded to words of 8 (little endian)::

    h = seed ^ (length * A);  for each word w:  h = (h ^ w) * B;  h ^= h >> 32
    then the finaliser of splitmix64

A longer identifier is hashed by BLAKE2b (8 bytes) under the same seed. All arithmetic is modulo 2**64.
Not a MAC: someone who may choose identifiers can find collisions, which costs a duplicate or a missed
join, never a wrong verdict. BLAKE2b for each identifier costs 0.7 us, this costs 0.03.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from regate.detectors.columns import HashArray, IntArray

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xD6E8FEB86659FD93)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S32, _S30, _S27, _S31 = np.uint64(32), np.uint64(30), np.uint64(27), np.uint64(31)
WORD = 8
# Beyond this a column of long identifiers would cost more by words than BLAKE2b does.
LONGEST = 64
# Several passes over this many stay in the processor's cache.
CHUNK = 4096


def hash_column(array: pa.Array, seed: int = 0) -> HashArray:
    """Return the hash of each value of a string, binary, integer or dictionary column; nulls hash as ``""``.

    :param array: ``n`` identifiers; integers count as their decimal text, so 7 and "7" are one identifier.
    :param seed: a salt; clients are hashed under the deployment's own.
    """
    if pa.types.is_dictionary(array.type):
        return _hash_dictionary(array, seed)
    if not pa.types.is_large_string(array.type):
        array = array.cast(pa.large_string())
    if len(array) == 0:
        return np.empty(0, np.uint64)
    _, offsets_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64, len(array) + 1, array.offset * 8)
    starts, lengths = offsets[:-1], np.diff(offsets)
    if array.null_count:
        lengths = np.where(array.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    # Padding lets the last word of the last identifier be read whole.
    data = b"".join((memoryview(data_buffer or b"")[: int(offsets[-1])], bytes(WORD)))
    if len(array) <= CHUNK:
        return _hash_bytes(data, starts, lengths, seed)
    cuts = range(0, len(array), CHUNK)
    return np.concatenate([_hash_bytes(data, starts[c : c + CHUNK], lengths[c : c + CHUNK], seed) for c in cuts])


def hash_texts(texts: Sequence[str], seed: int = 0) -> HashArray:
    """Return the hash of each identifier.

    >>> hash_texts(["a", "b", "a"]).tolist() == hash_column(pa.array(["a", "b", "a"])).tolist()
    True
    """
    return hash_column(pa.array(texts, pa.large_string()), seed)


def hash_clients(array: pa.Array, seed: int = 0) -> HashArray:
    """Return the hash of each client; 0 for nobody: where an identifier is null, NaN or empty.

    >>> hash_clients(pa.array(["a", None, ""])).tolist()[1:]
    [0, 0]
    """
    hashes = hash_column(array, seed)
    nobody = hashes == hash_texts([""], seed)[0]
    if pa.types.is_floating(array.type):
        nobody |= np.asarray(array.is_null(nan_is_null=True).to_numpy(zero_copy_only=False), np.bool_)
    return np.where(nobody, np.uint64(0), hashes)


def _hash_dictionary(array: pa.Array, seed: int) -> HashArray:
    table = np.append(hash_column(array.dictionary, seed), hash_texts([""], seed))
    codes = array.indices.cast(pa.int64()).fill_null(len(table) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(table[codes], np.uint64)


def _hash_bytes(data: bytes, starts: IntArray, lengths: IntArray, seed: int) -> HashArray:
    start = np.uint64(seed & 0xFFFF_FFFF_FFFF_FFFF)
    hashes = np.ascontiguousarray(start ^ (lengths.astype(np.uint64) * _A))
    longest = int(lengths.max())
    short = min(longest, LONGEST)
    even = int(lengths.min()) == longest <= LONGEST and bool((np.diff(starts) == longest).all())
    # An unaligned view: element k is the 8 bytes that begin at byte k.
    words = np.ndarray((len(data) - WORD + 1,), "<u8", data, strides=(1,))
    for at in range(0, short, WORD):
        if even:
            stop = int(starts[-1]) + at + 1
            word = words[int(starts[0]) + at : stop : longest].astype(np.uint64)
            _absorb(hashes, word, np.full(1, longest - at))
            continue
        rows = np.flatnonzero(lengths > at)
        part = hashes[rows]
        _absorb(part, words[starts[rows] + at].astype(np.uint64), lengths[rows] - at)
        hashes[rows] = part
    _finish(hashes)
    for row in np.flatnonzero(lengths > LONGEST):
        text = data[starts[row] : starts[row] + lengths[row]]
        key = int(start).to_bytes(8, "little")
        hashes[row] = int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key).digest(), "little")
    return hashes


def _absorb(hashes: HashArray, words: HashArray, left: IntArray) -> None:
    """Mix one word into each hash; ``left`` bytes of it belong to the identifier, the rest to its neighbour."""
    if int(left.min()) < WORD:
        cut = (np.uint64(WORD) - np.minimum(left, WORD).astype(np.uint64)) * np.uint64(8)
        words &= np.uint64(0xFFFF_FFFF_FFFF_FFFF) >> cut
    hashes ^= words
    hashes *= _B
    hashes ^= hashes >> _S32


def _finish(hashes: HashArray) -> None:
    hashes ^= hashes >> _S30
    hashes *= _M1
    hashes ^= hashes >> _S27
    hashes *= _M2
    hashes ^= hashes >> _S31
