"""Operators: who is asked by an alarm, as the catalog knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from engine.catalog import Catalog

Array = np.ndarray[Any, Any]
By = Literal["department", "owner", "district", "category", "all"]
WAYS: tuple[By, ...] = get_args(By)
"""What may make an operator."""
NOBODY = "(none)"
"""The operator of sources that name none."""
EVERYBODY = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class Operators:
    """The operators of a catalog's sources, each with one source at least."""

    by: By
    names: tuple[str, ...]
    of_source: Array
    """(S,) int64 into `names`"""
    n_sources: Array
    """(O,) int64"""

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, catalog: Catalog, by: By = "department") -> Operators:
        """Return the operators by one of WAYS; sources that name none belong to NOBODY."""
        codes, known = _codes(catalog, by)
        present, of_source = np.unique(
            np.where(codes < 0, len(known), codes).astype(np.int64), return_inverse=True
        )
        names = [*known, NOBODY]
        return cls(
            by=by,
            names=tuple(names[code] for code in present.tolist()),
            of_source=np.ascontiguousarray(of_source, np.int64),
            n_sources=np.bincount(of_source, minlength=len(present)),
        )


def _codes(catalog: Catalog, by: By) -> tuple[Array, list[str]]:
    if by == "department":
        return catalog.department, catalog.departments
    if by == "district":
        return catalog.district, catalog.districts
    if by == "category":
        return catalog.category, catalog.categories
    if by == "all":
        return np.zeros(catalog.n_sources, np.int64), [EVERYBODY]
    if by == "owner":
        owners = catalog.owner.dictionary_encode()
        names = cast(list[str], owners.dictionary.to_pylist())
        codes = owners.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        if "" in names:
            codes = np.where(codes == names.index(""), -1, codes)
        return codes, names
    raise ValueError(f"by: must be one of {', '.join(WAYS)}, got {by!r}")
