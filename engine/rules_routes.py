"""Routes: which alerts go to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from engine.rules_base import ANY, Flaw, Level, Names, Section, once

DEFAULT = "default"
"""Takes what no route takes, unless a route is declared for that."""
MAX_ROUTES = 1_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _plain(name: str) -> str:
    # it becomes part of keys and addresses elsewhere
    if not _NAME.fullmatch(name):
        raise ValueError(
            "must be 1 to 64 of the letters A to Z and a to z, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return name


RouteName = Annotated[str, AfterValidator(_plain)]
SomeLevels = Annotated[
    tuple[Level, ...], Field(strict=False, min_length=1, max_length=4), AfterValidator(once)
]


class Route(Section):
    """Takes the alerts that fit all of its conditions."""

    name: RouteName = Field(examples=["route"])
    levels: SomeLevels | None = None
    categories: Names | None = None
    districts: Names | None = None
    departments: Names | None = None
    default: bool = False

    def conditions(self) -> dict[str, tuple[str, ...]]:
        """Return the conditions that are given."""
        keys = ("levels", "categories", "districts", "departments")
        pairs = ((key, getattr(self, key)) for key in keys)
        return {key: given for key, given in pairs if given is not None}

    def flaws(self) -> Iterator[Flaw]:
        given = self.conditions()
        if self.default and given:
            bound = f"takes what no other route takes, and so can't have {' or '.join(given)}"
            yield Flaw(("default",), bound, True, tuple((key,) for key in given))
        elif not self.default and not given:
            bound = "must have levels, categories, districts or departments, or default = true"
            # a key that was left out for a fault, or is misspelt, may have been the condition
            yield Flaw((), bound, None, ((ANY,),))


def route_flaws(routes: tuple[Route, ...]) -> Iterator[Flaw]:
    """Yield what is wrong with routes taken together."""
    first: dict[str, int] = {}
    defaults = [index for index, route in enumerate(routes) if route.default]
    for index, route in enumerate(routes):
        other = first.setdefault(route.name, index)
        key = ("routes", index, "name")
        if other != index:
            about = (key, ("routes", other, "name"))
            yield Flaw(key, "must differ from other routes'", route.name, about)
        elif route.name == DEFAULT and not route.default:
            bound = "is the name of what takes the rest: such a route needs default = true"
            yield Flaw(key, bound, route.name, (key, ("routes", index, "default")))
    for index in defaults[1:]:
        key = ("routes", index, "default")
        bound = f"only one route can take the rest, and routes[{defaults[0]}] does"
        yield Flaw(key, bound, True, (key, ("routes", defaults[0], "default")))
