"""What a probe found: the law of a model's log-norm, layer by layer, and what to make of it."""

import dataclasses
import types
from collections.abc import Sequence

import numpy as np

from lognorm_jax import laws, summaries


@dataclasses.dataclass(frozen=True)
class Report:
    """Log-norms over fresh initialisations; ``str`` of it is a table. Errors are standard errors.

    Means and variances are of the samples that are alive; arrays are (depth,).
    """

    names: tuple[str, ...]  # of the layers
    num_samples: int
    mean: float
    mean_error: float
    variance: float
    variance_error: float
    dead_mass: float
    dead_mass_error: float
    beta: float  # variance / 5: the β of a plain ReLU network that is as unstable
    beta_interval: tuple[float, float]  # 95%
    layer_mean: np.ndarray
    layer_mean_error: np.ndarray
    layer_variance: np.ndarray
    layer_variance_error: np.ndarray
    layer_dead_mass: np.ndarray  # dead by then
    factor: float
    vanishing: float  # share of samples whose coordinates shrink by more than the factor, or die
    exploding: float  # share whose coordinates grow by more
    log_norms: np.ndarray = dataclasses.field(repr=False)  # (num_samples,)

    @property
    def verdict(self) -> str:
        """Return "stable", "vanishing", "exploding" or, for both, "erratic".

        Stable: at most 5% of the samples change the root mean square of a coordinate by more than
        the factor, up or down; the others say where more than 5% go.
        """
        down, up = self.vanishing > 0.05, self.exploding > 0.05
        return ("stable", "exploding", "vanishing", "erratic")[2 * down + up]

    @property
    def law(self) -> laws.Law:
        """The law of the log-norms that were seen, for ``laws.ks_distance``."""
        return laws.empirical(self.log_norms)

    def __str__(self) -> str:
        """Return the table of layers, the total and the verdict."""
        wide = max(len(name) for name in (*self.names, "layer", "all"))
        lines = [f"{'layer':{wide}}  mean of ln R       variance of ln R   dead"]
        rows = zip(
            self.names,
            self.layer_mean,
            self.layer_mean_error,
            self.layer_variance,
            self.layer_variance_error,
            self.layer_dead_mass,
            strict=True,
        )
        total = ("all", self.mean, self.mean_error, self.variance, self.variance_error)
        for name, mean, mean_error, variance, variance_error, dead in (
            *rows,
            (*total, self.dead_mass),
        ):
            lines.append(
                f"{name:{wide}}  {mean:8.3f} ± {mean_error:<7.2g} "
                f"{variance:8.3f} ± {variance_error:<7.2g} {dead:.3g}"
            )
        low, high = self.beta_interval
        unstable = f"As unstable as a ReLU network of β = {self.beta:.3g} [{low:.3g}, {high:.3g}]."
        if self.dead_mass == 1:
            unstable = "No sample got through: is the input zero, or a layer always off?"
        lines += [
            unstable,
            f"{self.verdict}: of {self.num_samples} samples {self.vanishing:.1%} shrink and "
            f"{self.exploding:.1%} grow by more than a factor {self.factor:g} a coordinate.",
        ]
        return "\n".join(lines)


def report(
    increments: np.ndarray, names: Sequence[str], growth: float = 0.0, factor: float = 10.0
) -> Report:
    """Return the report of sampled increments (num_samples, depth).

    growth: ln of the number of coordinates of the output over that of the input.
    """
    found = summaries.summarise(summaries.moments(types.SimpleNamespace(increment=increments)))
    log_norms = increments.sum(1)
    per_coordinate = (log_norms - growth) / 2
    variance, error = float(found.variance[-1]), float(found.variance_error[-1])
    relative = error / variance if variance > 0 else 0.0  # the log is nearer to normal
    return Report(
        tuple(names),
        len(increments),
        float(found.mean[-1]),
        float(found.mean_error[-1]),
        variance,
        error,
        float(found.dead_mass[-1]),
        float(found.dead_mass_error[-1]),
        variance / 5,
        tuple(variance / 5 * np.exp(sign * 1.96 * relative) for sign in (-1, 1)),
        *(
            getattr(found, field)[:-1]
            for field in ("mean", "mean_error", "variance", "variance_error", "dead_mass")
        ),
        factor,
        float(np.mean(per_coordinate < -np.log(factor))),
        float(np.mean(per_coordinate > np.log(factor))),
        log_norms,
    )
