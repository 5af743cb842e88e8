"""Statements as the driver takes them: text, and values by place, which cost it half of what names do."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Dialect, Executable


class Prepared(NamedTuple):
    """A statement, ready for the driver.

    Attributes:
        text: in the database's dialect.
        names: of its parameters, in the order in which it takes them.
        values: picks them from a row.
    """

    text: str
    names: Sequence[str]
    values: Callable[[Mapping[str, Any]], Sequence[Any]]


def prepare(statement: Executable, dialect: Dialect) -> Prepared:
    """Compile a statement for a dialect whose parameters have places."""
    compiled: Any = statement.compile(dialect=dialect)  # type: ignore[attr-defined] # all have it
    names = compiled.positiontup or []
    own = {name: value for name, value in compiled.params.items() if value is not None}  # SQLAlchemy's: OFFSET 0
    return Prepared(str(compiled), names, _picker(names, own))


def _picker(names: Sequence[str], own: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """Return what picks the values of these names from a row; *own* are values that no row has."""
    if own or len(names) < 2:  # noqa: PLR2004 - `itemgetter` gives tuples from two names on
        return lambda row: tuple([row[name] if name in row else own[name] for name in names])
    return itemgetter(*names)
