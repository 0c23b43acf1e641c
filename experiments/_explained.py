"""How much of what differs between networks is known from one number of their shape."""

import itertools
import math
from collections.abc import Iterable

import numpy as np
from scipy import optimize

LEVEL = 0.95  # of the intervals
PERMUTATIONS = 400


def monotone(predictor: np.ndarray, outcome: np.ndarray) -> float:
    """Return the fraction of the variance that the best monotone function explains, in
    [0, 1].

    predictor, outcome: (networks,). The function may rise or fall, and no form of it is
    assumed; networks of equal predictor get one value. 1 if nothing varies.
    """
    _, place = np.unique(np.asarray(predictor), return_inverse=True)
    outcome = np.asarray(outcome, np.float64)
    count = np.bincount(place)
    mean = np.bincount(place, outcome) / count
    total = np.sum((outcome - outcome.mean()) ** 2)
    if np.ptp(outcome) == 0:
        return 1.0

    # what the best rising and the best falling function leave
    left = []
    for increasing in (True, False):
        fitted = optimize.isotonic_regression(
            mean, weights=count, increasing=increasing
        ).x
        left.append(np.sum((outcome - fitted[place]) ** 2))
    return float(1 - min(left) / total)


# (predictors, draws)
def fractions(predictors: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Return what each predictor explains beyond chance, for each draw of the outcomes.

    predictors: (predictors, networks). outcomes: (draws, networks), the first as
    measured. A predictor of more values fits noise better, so that (f − c)/(1 − c) is
    told: f is ``monotone``, and c its mean over permutations of the first outcomes. 0
    is chance, 1 is all.
    """
    rng = np.random.default_rng(0)
    found = []
    for predictor in predictors:
        shuffled = _permutations(outcomes[0], rng)
        chance = np.mean([monotone(predictor, outcome) for outcome in shuffled])
        seen = np.array([monotone(predictor, outcome) for outcome in outcomes])
        # one value for all networks: nothing to explain by chance or else
        beyond = (seen - chance) / (1 - chance) if chance < 1 else np.zeros(len(seen))
        found.append(beyond)
    return np.array(found)


def _permutations(outcome: np.ndarray, rng) -> Iterable:
    """Return all orders of the outcomes where these are few, else random ones."""
    if math.factorial(len(outcome)) <= PERMUTATIONS:
        return itertools.permutations(outcome)
    return (rng.permutation(outcome) for _ in range(PERMUTATIONS))


def shares(successes: np.ndarray, rng, repeats: int) -> np.ndarray:  # (1 + repeats, …)
    """Return the shares of (count, …) successes, and draws of what they may be in
    truth.

    From Beta(successes + ½, failures + ½), Jeffreys' posterior: also 0 of n leaves a
    doubt, which drawing from the seeds again would not.
    """
    hits, count = successes.sum(0), len(successes)
    drawn = rng.beta(hits + 0.5, count - hits + 0.5, size=(repeats, *hits.shape))
    return np.concatenate([successes.mean(0)[None], drawn])


def interval(draws: np.ndarray) -> tuple[float, float, float]:
    """Return the first of some draws, and the interval that ``LEVEL`` of the others lie
    in.
    """
    tail = (1 - LEVEL) / 2
    return (float(draws[0]), *map(float, np.quantile(draws[1:], (tail, 1 - tail))))


# (1 + repeats,)
def resampled(samples: np.ndarray, statistic, rng, repeats: int) -> np.ndarray:
    """Return a statistic of (count, …) samples, and of as many drawn from them with
    return.
    """
    rows = rng.integers(len(samples), size=(repeats, len(samples)))
    return np.array([statistic(samples), *(statistic(samples[own]) for own in rows)])
