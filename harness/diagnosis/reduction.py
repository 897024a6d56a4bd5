"""The search for a smallest failing subset, for a test that costs a container: the likely elements are tried first.

Hierarchical delta debugging (Misherghi and Su, 2006) asks for a subset of each level of a tree. ddmin (Zeller, 2002)
finds one without knowing where to look, with two tests for each halving; here the runtime's own words usually name the
place. So the elements come ordered by suspicion, and what is looked for is the shortest prefix that fails: its last
element is needed. That is QuickXplain's idea (Junker, 2004): k needed among n elements cost about k log n tests, and
two if the first suspect is the one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrink(
    ordered: Sequence[T], fails: Callable[[list[T]], bool], *, likely: int = 0, limit: int | None = None
) -> list[T]:
    """A small subset of `ordered` that fails, in the order in which its elements were found to be needed.

    `ordered`: likeliest first; the first `likely` are suspects, and with 0 the empty set is tried first. The whole of
    it must fail, and is not tried. Each element of the answer was needed in some failing set; only if the test is
    monotone is none superfluous. After `limit` tests the rest stays as it is.
    """
    left = [limit if limit is not None else -1]

    def tried(subset: list[T]) -> bool:
        left[0] -= 1
        return fails(subset)

    needed: list[T] = []
    pool = list(ordered)
    first = min(likely, 1)
    while True:
        length = _shortest(needed, pool, tried, first, left)
        if length is None or length == 0:
            return needed + (pool if length is None else [])
        needed.append(pool[length - 1])
        # the needed alone, then with ever more of what is before the last one
        pool, first = pool[: length - 1], 0
        if left[0] == 0:
            return needed + pool


def _shortest(
    needed: list[T], pool: list[T], fails: Callable[[list[T]], bool], first: int, left: list[int]
) -> int | None:
    """Length of a prefix of `pool` that fails together with `needed`, while the one shorter by one does not.

    The whole pool is known to fail. Lengths from `first` on, doubled, then halving. None: no tests are left; `pool`
    is cut down to the shortest prefix that is known to fail.
    """
    passing, failing = -1, len(pool)
    length = first
    while failing - passing > 1:
        if left[0] == 0:
            del pool[failing:]
            return None
        if length >= failing or passing >= length:
            length = (passing + failing) // 2
        if fails(needed + pool[:length]):
            failing = length
        else:
            passing = length
            length = max(1, 2 * length) if failing == len(pool) else length
    return failing
