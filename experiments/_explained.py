"""How much of what differs between networks is known from one number of their shape."""

import itertools
import math

import numpy as np

from lognorm_jax import summaries

LEVEL = 0.95  # of the intervals
PERMUTATIONS = 400


def monotone(
    predictor: np.ndarray, outcomes: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return the fraction of the variance that the best monotone function explains.

    The function may rise or fall, and no form of it is assumed; networks of equal
    predictor get one value.

    Args:
        predictor: (networks,).
        outcomes: (..., networks), each explained on its own.
        weights: of the networks, (..., networks), positive; None: equal ones.

    Returns:
        (...), in [0, 1]; 1 where nothing varies.
    """
    _, place = np.unique(np.asarray(predictor), return_inverse=True)
    outcomes = np.asarray(outcomes, np.float64)
    weights = np.broadcast_to(1.0 if weights is None else weights, outcomes.shape)
    constant = np.ptp(outcomes, axis=-1) == 0

    # means over the networks of each value, and what they leave unexplained
    values = (place[:, None] == np.arange(place.max() + 1)).astype(float)
    count = weights @ values
    centred = outcomes - np.average(outcomes, -1, weights, keepdims=True)
    means = (weights * centred) @ values / count
    total = np.sum(weights * np.square(centred), axis=-1)
    within = total - np.sum(count * np.square(means), axis=-1)

    # what the nearest rising and falling functions of the values leave of the means
    left = [
        np.sum(count * np.square(means - sign * _rising(sign * means, count)), axis=-1)
        for sign in (1, -1)
    ]
    unexplained = (within + np.minimum(*left)) / np.where(constant, 1, total)
    return np.where(constant, 1, 1 - unexplained)


def _rising(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the nearest rising sequence, by weighted least squares.

    At i it is the largest over j ≤ i of the smallest over k ≥ i of the mean of the
    values from j to k (the max-min formula of isotonic regression).

    Args:
        values: (..., count).
        weights: likewise, positive.
    """
    place = np.arange(values.shape[-1])
    ordered = place[:, None] <= place  # j ≤ k

    # means from j to k, (..., j, k)
    until = np.cumsum(values * weights, axis=-1)
    before = until - values * weights
    ends = np.cumsum(weights, axis=-1)
    size = ends[..., None, :] - (ends - weights)[..., :, None]
    sums = until[..., None, :] - before[..., :, None]
    means = np.where(ordered, sums / np.where(ordered, size, 1), np.inf)

    # the smallest over k ≥ i, then the largest over j ≤ i
    smallest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
    return np.where(ordered, smallest, -np.inf).max(-2)


def fractions(
    predictors: np.ndarray, outcomes: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return what each predictor explains beyond chance, for each draw of the outcomes.

    A predictor of more values fits noise better, so that (f − c)/(1 − c) is told: f is
    ``monotone``, and c its mean over permutations of the first outcomes, with their
    weights: all of them if these are few, else random ones.

    Args:
        predictors: (predictors, networks).
        outcomes: (draws, networks), the first as measured.
        weights: of the networks, (networks,), positive; None: equal ones.

    Returns:
        (predictors, draws): 0 is chance, 1 is all.
    """
    rng = np.random.default_rng(0)
    weights = np.ones(outcomes.shape[1]) if weights is None else np.asarray(weights)
    found = []
    for predictor in predictors:
        orders = _orders(outcomes.shape[1], rng)
        chance = monotone(predictor, outcomes[0][orders], weights[orders]).mean()
        explained = monotone(predictor, outcomes, weights)
        beyond = explained - chance
        found.append(beyond / (1 - chance) if chance < 1 else 0 * explained)
    return np.array(found)


def _orders(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return orders of so many networks, (orders, count)."""
    if math.factorial(count) <= PERMUTATIONS:
        return np.array(list(itertools.permutations(range(count))))
    return np.array([rng.permutation(count) for _ in range(PERMUTATIONS)])


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


# (1 + repeats,)
def log_variances(samples: np.ndarray, rng, repeats: int) -> np.ndarray:
    """Return the logarithm of the variance of (count,) samples, 3 or more and not all
    the same, and draws of what it may be in truth.

    The variance over χ²/k, Jeffreys' posterior of normal samples, but with no more
    degrees of freedom k than have the standard error of the variance. Of samples with
    heavy tails, of which few are seen among few, the draws lie too near: their 95%
    cover 77% to 90% of the time. (Drawn from few samples with return, some would be all
    but equal.)
    """
    variance, error = summaries.estimate(samples).variance
    if not variance > 0:
        return np.full(1 + repeats, np.nan)
    freedom = 2 / max((error / variance) ** 2, 2 / (len(samples) - 1))
    drawn = rng.chisquare(freedom, repeats) / freedom
    return np.log(variance) - np.log(np.concatenate([[1.0], drawn]))
