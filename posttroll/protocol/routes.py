"""Rules that change addresses: where to send what is sent to one, and what a peer sees of it.

In a pattern `%` stands for any characters but a slash and `*` for any characters at all, or for none; each for as many
as it can. In the new address `$1` to `$9` are what the first to the ninth of them stand for. The first rule whose
pattern fits the whole address decides.

Addresses may come from peers: to fit one takes a time proportional to its length and the number of pieces of a pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from posttroll.errors import ConfigurationError

__all__ = ["WITHOUT_CREDENTIALS", "Routes"]

WITHOUT_CREDENTIALS = (("%://%@*", "$1://$3"), ("%@*", "$2"))

_LONGEST_ADDRESS = 2**16
_LONGEST_RULE = 1024
_MOST_WILDCARDS = 9
_BARRIERS = {"%": "/", "*": None}
_NOWHERE = -1

_split = re.compile(r"([%*])").split
_reference = re.compile(r"\$([1-9])")


class Routes:
    """Ordered rules, each a pattern and the address that takes the place of one that fits it.

    The `defaults` are tried after those that are added.
    """

    def __init__(self, defaults: Iterable[tuple[str, str]] = ()) -> None:
        self._rules: list[_Rule] = []
        self._defaults = [_Rule.parse(*rule) for rule in defaults]

    def add(self, pattern: str, address: str) -> None:
        """Have this rule tried after the others; `ConfigurationError` if it cannot work."""
        self._rules.append(_Rule.parse(pattern, address))

    def resolve(self, address: str) -> str:
        """Return the address that takes this one's place, itself if no rule fits.

        `ConfigurationError` if it is longer than 65,536 characters.
        """
        if len(address) > _LONGEST_ADDRESS:
            raise ConfigurationError(f"an address has at most {_LONGEST_ADDRESS} characters, not {len(address)}")
        for rule in chain(self._rules, self._defaults):
            if (resolved := rule.apply(address)) is not None:
                return resolved
        return address


class _Rule(NamedTuple):
    pieces: list[str]
    literals: list[str]
    address: str

    @classmethod
    def parse(cls, pattern: str, address: str) -> _Rule:
        if max(len(pattern), len(address)) > _LONGEST_RULE:
            raise ConfigurationError(f"a pattern and its address have at most {_LONGEST_RULE} characters each")
        pieces = [piece for piece in _split(pattern) if piece]
        literals = [piece for piece in pieces if piece not in _BARRIERS]
        wildcards = len(pieces) - len(literals)
        if wildcards > _MOST_WILDCARDS:
            raise ConfigurationError(f"the pattern {pattern!r} has more than {_MOST_WILDCARDS} wildcards")
        for reference in _reference.findall(address):
            if int(reference) > wildcards:
                raise ConfigurationError(f"there is no ${reference}: the pattern {pattern!r} has {wildcards} wildcards")
        return cls(pieces, literals, address)

    def apply(self, address: str) -> str | None:
        if not all(literal in address for literal in self.literals):
            return None
        found = _fit(self.pieces, address)
        if found is None:
            return None
        return _reference.sub(lambda reference: found[int(reference[1]) - 1], self.address)


def _fit(pieces: list[str], text: str) -> list[str] | None:
    """Return what each wildcard stands for; None if the text does not fit."""
    ends = [_NOWHERE] * len(text) + [len(text)]
    table = []
    for piece in reversed(pieces):
        ends = _wildcard_ends(piece, text, ends) if piece in _BARRIERS else _literal_ends(piece, text, ends)
        table.append(ends)
    if ends[0] == _NOWHERE:
        return None
    found, position = [], 0
    for piece, ends in zip(pieces, reversed(table), strict=True):
        if piece in _BARRIERS:
            found.append(text[position : ends[position]])
        position = ends[position]
    return found


def _literal_ends(literal: str, text: str, following: list[int]) -> list[int]:
    """Return, for each position, where the literal ends that begins there, if what follows it fits from there."""
    ends = [_NOWHERE] * len(following)
    position = text.find(literal)
    while position != _NOWHERE:
        if following[position + len(literal)] != _NOWHERE:
            ends[position] = position + len(literal)
        position = text.find(literal, position + 1)
    return ends


def _wildcard_ends(wildcard: str, text: str, following: list[int]) -> list[int]:
    """Return, for each position, the last place where a wildcard that begins there may end."""
    barrier = _BARRIERS[wildcard]
    ends = [_NOWHERE] * len(following)
    end = _NOWHERE
    for position in range(len(text), -1, -1):
        if text[position : position + 1] == barrier:
            end = _NOWHERE
        if end == _NOWHERE and following[position] != _NOWHERE:
            end = position
        ends[position] = end
    return ends
