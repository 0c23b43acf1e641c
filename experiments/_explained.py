"""How much of what differs between networks is known from one number of their shape."""

import numpy as np
from scipy import optimize

LEVEL = 0.95  # of the intervals


def monotone(predictor: np.ndarray, outcome: np.ndarray) -> float:
    """Return the fraction of the variance that the best monotone function explains, in [0, 1].

    predictor, outcome: (networks,). The function may rise or fall, and no form of it is assumed;
    networks of equal predictor get one value, so a predictor of more values can only gain. 1 if
    nothing varies.
    """
    _, place = np.unique(np.asarray(predictor), return_inverse=True)
    outcome = np.asarray(outcome, np.float64)
    count = np.bincount(place)
    mean = np.bincount(place, outcome) / count
    total = np.sum((outcome - outcome.mean()) ** 2)
    if total == 0:
        return 1.0
    left = []
    for increasing in (True, False):
        fitted = optimize.isotonic_regression(mean, weights=count, increasing=increasing).x
        left.append(np.sum((outcome - fitted[place]) ** 2))
    return float(1 - min(left) / total)


def fractions(predictors: np.ndarray, outcomes: np.ndarray) -> np.ndarray:  # (predictors, draws)
    """Return ``monotone`` of each predictor, (predictors, networks), for each draw of outcomes."""
    return np.array([[monotone(p, outcome) for outcome in outcomes] for p in predictors])


def interval(draws: np.ndarray) -> tuple[float, float, float]:
    """Return the first of some draws, and the interval that ``LEVEL`` of the others lie in."""
    tail = (1 - LEVEL) / 2
    return (float(draws[0]), *map(float, np.quantile(draws[1:], (tail, 1 - tail))))


def resampled(samples: np.ndarray, statistic, rng, repeats: int) -> np.ndarray:  # (1 + repeats,)
    """Return a statistic of (count, …) samples, and of as many drawn from them with return."""
    rows = rng.integers(len(samples), size=(repeats, len(samples)))
    return np.array([statistic(samples), *(statistic(samples[own]) for own in rows)])
