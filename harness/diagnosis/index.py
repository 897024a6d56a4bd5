"""An index of templates by the literal texts that they must have: of thousands, one pass over a text leaves a few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, TypeVar

from harness.diagnosis.template import Template

T = TypeVar("T")


class Index(Generic[T]):
    """Templates, each with what it is for."""

    def __init__(self, entries: Iterable[tuple[Template, T]]) -> None:
        import re2

        # by the literal that tells most: what else must be there, the template, its purpose
        self._by_key: dict[bytes, list[tuple[list[frozenset[bytes]], Template, T]]] = defaultdict(list)
        literals: set[bytes] = set()
        for template, purpose in entries:
            literals |= frozenset().union(*template.required)
            for literal in template.required[0]:
                self._by_key[literal].append((template.required[1:], template, purpose))
        options = re2.Options()
        options.literal = True
        options.max_mem = 64 << 20
        self._literals = sorted(literals)
        self._set = re2.Set.SearchSet(options)
        for literal in self._literals:
            self._set.Add(literal)
        self._set.Compile()

    def candidates(self, hay: bytes) -> list[tuple[Template, T]]:
        """Those of which all the literal text is in `hay`, always in the same order; one may come twice."""
        there = [self._literals[number] for number in sorted(self._set.Match(hay) or ())]
        present = frozenset(there)
        found = []
        missing = present.isdisjoint
        for literal in there:
            for others, template, purpose in self._by_key.get(literal, ()):
                for group in others:
                    if missing(group):
                        break
                else:
                    found.append((template, purpose))
        return found
