"""All advice about one network, as rows of a table."""

import dataclasses
import functools
import html
import math
from collections.abc import Callable, Iterable

import numpy as np

from lognorm_jax import activations, weights
from lognorm_jax._tools import checks
from lognorm_jax.probing import reports
from lognorm_jax.tool import _gains, _rows, _sampled, _stable

# depth, law of weights -> the share of sampled networks that is unstable, or None
Confirm = Callable[[int, weights.Weights | None], reports.IntervalEstimate | None]


@dataclasses.dataclass(frozen=True)
class Advice:
    """Rows of advice; ``str`` of it is a table, ``as_dict`` goes into JSON.

    Attributes:
        width: n, of all layers.
        depth: d, number of layers.
        activation: its name.
        factor: > 1, by which norms may change.
        share: in (0, 1), of initialisations that may change by more.
        rows: what, how much, and where each number comes from.
    """

    width: int
    depth: int
    activation: str
    factor: float
    share: float
    rows: tuple[_rows.Row, ...]

    def __str__(self) -> str:
        """Return the table."""
        title = (
            f"{self.activation}, width {self.width}, depth {self.depth}. Stable: at "
            f"most {self.share:.0%} of initialisations\nchange norms by more than a "
            f"factor {self.factor:g}."
        )
        return "\n".join([title, "", *_rows.table(self.rows)])

    def _repr_html_(self) -> str:
        """Return it for a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def as_dict(self) -> dict:
        """Return what JSON can hold.

        Returns:
            The fields by name, the rows as dictionaries of theirs.
        """
        rows = [row._asdict() for row in self.rows]
        return {**dataclasses.asdict(self), "rows": rows}


def advise(
    width: int,
    depth: int,
    activation: str | activations.Activation = "relu",
    *,
    factor: float = 10.0,
    share: float = reports.LIMIT,
    fan_in: int = 16,
    simulate: int = 0,
) -> Advice:
    """Return what this network's gains, depth, width and skips should be.

    Args:
        width: n ≥ 1, of all layers.
        depth: d ≥ 1.
        activation: an ``activations.Activation`` or its name.
        factor: > 1, by which norms may change: not squared.
        share: in (0, 1), of initialisations that may change by more.
        fan_in: k ≥ 1, weights per unit of the sparse network that is compared; at most
            n are taken.
        simulate: how many networks confirm each depth; 0 for none.

    Returns:
        The ``Advice``; printed, it is a table.

    Raises:
        ValueError: for arguments of another kind or range, and for depths beyond
            ``LARGEST``, or too deep to be sampled at the width for an activation
            without a mask.

    Source:
        As of ``gains``, ``depth``, ``narrowest`` and ``branch_scale``; held against
        sampled networks in tests/test_advice.py.
    """
    phi = activations.named(activation)
    n = checks.integer("width", width, 1)
    d = checks.integer("depth", depth, 1)
    factor, share = _stable.limits(factor, share)
    kept = min(checks.integer("fan_in", fan_in, 1), n)
    count = checks.integer("simulate", simulate, 0)
    most = _stable.LARGEST if phi.mask is not None else _sampled.deepest(n)
    why = "" if phi.mask is not None else " at this width: networks are sampled"
    checks.require(d <= most, "depth", d, f"at most {most:,}{why}")
    of_gains = _gain_rows(phi, n)
    confirm = functools.partial(_confirmed, n, phi, factor, count)
    if phi.mask is None:
        rows = _sampled_rows(n, d, phi, factor, share)
    else:
        rows = _law_rows(n, d, phi, kept, factor, share, confirm)
    return Advice(n, d, phi.name, factor, share, (*of_gains, *rows))


def _gain_rows(phi: activations.Activation, n: int) -> list[_rows.Row]:
    """Return the rows of gains."""
    found = _gains.gains(phi, n)
    order = "exact law of a layer" if phi.mask is not None else "first order in 1/n"
    alike = math.isclose(found.forward, found.backward, rel_tol=1e-9)
    both = "" if alike else "; no gain keeps both"
    mean = f"mean square, input N(0, 1){both}"
    return [
        _rows.Row("gain that keeps activations", found.forward, mean),
        _rows.Row(
            f"  typical ones at width {n}",
            found.forward * found.forward_correction,
            f"e^(−E ln R/2), {order}",
        ),
        _rows.Row("gain that keeps gradients", found.backward, mean),
        _rows.Row(
            f"  typical ones at width {n}",
            found.backward * found.backward_correction,
            f"e^(−E ln R/2), {order}",
        ),
    ]


def _law_rows(
    n: int,
    d: int,
    phi: activations.Activation,
    kept: int,
    factor: float,
    share: float,
    confirm: Confirm,
) -> Iterable[_rows.Row]:
    """Yield the rows of activations with a mask."""
    here, source = _stable.law(n, d, phi)
    chance = _stable.outside(here, factor)
    yield _rows.Row(f"P(unstable) at depth {d}", chance, source, None, confirm(d, None))
    deep = _stable.depth(n, phi, factor=factor, share=share)
    yield _depth_row(f"deepest stable at width {n}", deep, confirm, None)
    wide = _stable.narrowest(d, phi, factor=factor, share=share)
    narrow = wide.value if wide.value else f"over {_stable.LARGEST:,}"
    yield _rows.Row(f"narrowest stable at depth {d}", narrow, wide.source)
    orthogonal = weights.orthogonal()
    found = _stable.depth(n, phi, weight_law=orthogonal, factor=factor, share=share)
    yield _depth_row("deepest, orthogonal weights", found, confirm, orthogonal)
    if kept < n:
        law_of_few = weights.fixed_fan_in(kept)
        found = _stable.depth(n, phi, weight_law=law_of_few, factor=factor, share=share)
        yield _depth_row(
            f"deepest, {kept} weights per unit", found, confirm, law_of_few
        )
    if n < _stable.WIDE_ENOUGH:
        return
    lam = _stable.branch_scale(n, d, phi, factor=factor, share=share)
    yield _rows.Row(
        f"largest branch scale λ at depth {d}",
        lam,
        "limit law of √(1 − λ²) z + λ·branch; 1/√depth = " + f"{d**-0.5:.3g}",
    )


def _depth_row(
    quantity: str,
    found: _sampled.Found,
    confirm: Confirm,
    weight_law: weights.Weights | None,
) -> _rows.Row:
    """Return the row of a depth, with the share of networks there that is unstable."""
    known = 0 < found.value < _stable.LARGEST
    seen = confirm(found.value, weight_law) if known else None
    value: int | str = found.value
    if found.value == _stable.LARGEST:
        value = "any"
    return _rows.Row(quantity, value, found.source, found.interval, seen)


def _sampled_rows(
    n: int, d: int, phi: activations.Activation, factor: float, share: float
) -> Iterable[_rows.Row]:
    """Yield the rows of activations of which no law is known."""
    found = _gains.gains(phi)
    growth = 2 * math.log(found.forward / found.backward)
    yield _rows.Row(
        "ln R of gradients, a layer",
        growth,
        "where the gain keeps activations; 0 is stable",
    )
    normal = weights.normal()
    deepest = functools.partial(
        _sampled.sampled_depth, n, phi, start=max(d, 128), factor=factor, share=share
    )
    for name, gain in (("activations", found.forward), ("gradients", found.backward)):
        deep = deepest(gain=gain, weight_law=normal)
        quantity = f"deepest, gain that keeps {name}"
        yield _rows.Row(quantity, deep.value, deep.source, deep.interval)
    deep = deepest(gain=found.backward, weight_law=weights.orthogonal())
    yield _rows.Row("  with orthogonal weights", deep.value, deep.source, deep.interval)
    depths = _sampled.log_norms(n, max(d, 128), phi, found.backward, normal)
    log_norms = depths[:, d - 1]
    count = np.sum(np.abs(log_norms) > 2 * math.log(factor))
    low, chance, high = _sampled.shares(int(count), len(log_norms))
    source = f"gain that keeps gradients; {len(log_norms):,} sampled networks"
    yield _rows.Row(f"P(unstable) at depth {d}", chance, source, (low, high))


def _confirmed(
    n: int,
    phi: activations.Activation,
    factor: float,
    count: int,
    depth: int,
    weight_law: weights.Weights | None,
) -> reports.IntervalEstimate | None:
    """Return the share of so many networks that is unstable, or None."""
    if not count:
        return None
    increments = _sampled.sampled(
        n, depth, phi, weight_law=weight_law, num_samples=count
    )
    bad = int(np.sum(np.abs(increments.sum(1)) > 2 * math.log(factor)))
    low, share, high = _sampled.shares(bad, count)
    return reports.IntervalEstimate(share, (low, high))
