"""Salesforce record ids: 18 characters, rising with the record's index in the world."""

from __future__ import annotations

import functools
import re

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}
_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_SHAPE = re.compile(r"[0-9A-Za-z]{15}(?:[A-Z0-5]{3})?\Z")

#: Between the key prefix and the number: where the record's server was born. One org, one word.
_POD = "5e000"
#: Real orgs do not start at zero; neither do we, so that an id has both cases and a telling suffix.
_FIRST = _VALUE["A"] * 62**6 + _VALUE["q"] * 62**4
_WIDTH = 7

_DIGIT_BITS = [int("A" <= digit <= "Z") for digit in _DIGITS]
_PAIRS = [a + b for a in _DIGITS for b in _DIGITS]
_PAIR_BITS = [a | b << 1 for a in _DIGIT_BITS for b in _DIGIT_BITS]

#: PREFIX of a user's id, as in OwnerId and CreatedById.
USER_PREFIX = "005"


def checksum(id15: str) -> str:
    """Return the three characters that make a 15-character id safe where case is ignored: for each five, which are
    upper case."""
    suffix = ""
    for start in (0, 5, 10):
        bits = sum(1 << place for place in range(5) if "A" <= id15[start + place] <= "Z")
        suffix += _SUFFIX[bits]
    return suffix


@functools.cache
def _head_suffix(prefix: str) -> str:
    return checksum(prefix + _POD + "0" * _WIDTH)[0]


# A row's id is wanted several times in a row: for its address, as its Id, by a condition.
@functools.lru_cache(maxsize=256)
def encode(prefix: str, index: int) -> str:
    """Return the 18-character id of record `index`; ids of one prefix sort as text like their indexes.

    Called once or more per record read, so it works on pairs of digits and their share of the suffix.
    """
    rest, last = divmod(_FIRST + index, 62)
    rest, third = divmod(rest, 3844)
    first, second = divmod(rest, 3844)
    middle = _PAIR_BITS[first] << 3
    end = _PAIR_BITS[second] | _PAIR_BITS[third] << 2 | _DIGIT_BITS[last] << 4
    return (
        f"{prefix}{_POD}{_PAIRS[first]}{_PAIRS[second]}{_PAIRS[third]}{_DIGITS[last]}"
        f"{_head_suffix(prefix)}{_SUFFIX[middle]}{_SUFFIX[end]}"
    )


def normalise(text: str) -> str | None:
    """Return the 18-character form of a well-formed id of 15 or 18 characters, None for anything else.

    An 18-character id must carry the suffix of its first 15: one that lost its case is refused.
    """
    if not _SHAPE.match(text):
        return None
    id15 = text[:15]
    full = id15 + checksum(id15)
    return full if len(text) == 15 or text == full else None


def number(id15: str) -> int:
    """Return the index an id of ours would have (it may lie outside the world); -1 for an id of another org."""
    if id15[3:8] != _POD:
        return -1
    value = 0
    for digit in id15[8:15]:
        value = value * 62 + _VALUE[digit]
    return value - _FIRST


def place(id15: str) -> int:
    """Return how many of our indexes sort before an id, whoever's it is: for `Id >= x` over an index range."""
    if id15[3:8] != _POD:
        return 0 if id15[3:8] < _POD else 62**_WIDTH
    return max(0, number(id15))
