"""What theory says of a network: its limit law."""

from typing import Any

from lognorm_jax import laws
from lognorm_jax._tools import checks
from lognorm_jax.networks import _network


def limit_law(
    network: _network.Network, x: Any = None, tangent: Any = None
) -> laws.Law:
    """Return the limit law of ln ‖J(x) tangent‖²/‖tangent‖², as far as theory has one.

    x, tangent: as for ``jacobian_path``; None: on average over inputs or directions.
    Multilayer perceptrons with a mask: ``ensembles.limit_law``, shifted by the log of
    the gain over its own. Residual networks: ``residuals.law_moments``; the vanilla one
    along x only, whose law depends on x, and whose variance is low by a relative 3/n to
    8/n, and off by up to 12% more for an input with few positive coordinates. Raises
    ``ValueError`` for a network, an input or a direction without a law, saying how to
    sample it.
    """
    checks.instance("network", network, _network.Network)
    given = (("x", x), ("tangent", tangent))
    for name, value in given:
        checks.require_known(name, value)
    x, tangent = (
        v if v is None else checks.vector(name, v, network.shape) for name, v in given
    )
    instead = "Sample it: paths.gram or networks.jacobian_path, then laws.empirical."
    known = network.law is not None
    checks.require(
        known, "network", network.name, "one whose limit law is known", instead
    )
    return network.law(x, tangent)
