"""Frozen records that are pickled as the call that made them.

The functions inside a record are closures, which pickle refuses; the call, a public
constructor and its arguments, is little, and says what the record is. A record that
somebody made by hand is pickled as usual, with its functions by name.
"""

from collections.abc import Callable
from typing import Any


def made_by(record: Any, constructor: Callable, *arguments: Any) -> Any:
    """Return a frozen record, from now on pickled and copied as
    ``constructor(*arguments)``.

    Where the constructor remembers what it made, that comes back, not another one. The
    record has a field ``made`` for it, one that ``dataclasses.replace`` does not hand
    on to what is another.
    """
    object.__setattr__(record, "made", (constructor, arguments))
    return record
