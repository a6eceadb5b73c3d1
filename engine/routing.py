"""Routing: who is told of which alerts, as the rules' routes say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from engine.rules import Rules
from kernels.layout import LEVEL_NAMES

if TYPE_CHECKING:
    from engine.catalog import Catalog

N_MASKS = 1 << len(LEVEL_NAMES)
"""Sets of levels, bit k for level k, as in `TRANSITION.reached`."""


class Routing:
    """The routes of an alert: those of every level that its episode has reached.

    So who was told of an episode hears of its end, also at a level that is not theirs.
    """

    def __init__(self, catalog: Catalog, rules: Rules) -> None:
        self._words = (catalog.categories, catalog.districts, catalog.departments)
        self._rules = rules
        self._known: dict[tuple[int, int, int], tuple[bytes, ...]] = {}

    def routes(self, category: int, district: int, department: int) -> tuple[bytes, ...]:
        """Return the names of the routes, as a JSON array, for each set of levels reached.

        Arguments are the catalog's codes; few combinations occur, each is worked out once.
        """
        place = (category, district, department)
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = self._by_levels(*place)
        return found

    def _by_levels(self, *place: int) -> tuple[bytes, ...]:
        named = [
            words[code] if code >= 0 else None
            for words, code in zip(self._words, place, strict=True)
        ]
        takers = [self._takers(level, named) for level in LEVEL_NAMES[1:]]
        sets = (
            set().union(*(taker for k, taker in enumerate(takers, 1) if mask >> k & 1))
            or {self._rules.rest_route}
            for mask in range(N_MASKS)
        )
        order = self._rules.route_names
        return tuple(orjson.dumps([n for n in order if n in told]) for told in sets)

    def _takers(self, level: str, place: Sequence[str | None]) -> set[str]:
        """Return the routes that take one level of a source; what takes the rest if none does."""
        takers = set()
        for route in self._rules.routes:
            conditions = (route.levels, route.categories, route.districts, route.departments)
            if not route.default and all(
                names is None or word in names
                for names, word in zip(conditions, (level, *place), strict=True)
            ):
                takers.add(route.name)
        return takers or {self._rules.rest_route}
