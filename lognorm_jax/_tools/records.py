"""Frozen records that are pickled as the call that made them.

The functions inside a record are closures, which pickle refuses; the call, a public
constructor and its arguments, is little, and says what the record is. A record that
somebody made by hand is pickled as usual, with its functions by name.

A record has a field ``made`` for it, None at first, that takes no part in equality and
that ``dataclasses.replace`` does not hand on to what is another record; and
``__reduce_ex__ = records.as_call``.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Record = TypeVar("Record")


def made_by(record: Record, constructor: Callable, *arguments: Any) -> Record:
    """Return a record, from now on pickled and copied as ``constructor(*arguments)``.

    Where the constructor remembers what it made, that comes back, not another one.
    """
    object.__setattr__(record, "made", (constructor, arguments))
    return record


def as_call(record: Any, protocol: Any) -> Any:
    """Return what pickle needs of a record: the call that made it, if there is one."""
    return record.made or object.__reduce_ex__(record, protocol)
