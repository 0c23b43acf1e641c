"""How much of what differs between networks is known from one number of their shape."""

import itertools
import math

import numpy as np

LEVEL = 0.95  # of the intervals
PERMUTATIONS = 400


def monotone(predictor: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Return the fraction of the variance that the best monotone function explains.

    The function may rise or fall, and no form of it is assumed; networks of equal
    predictor get one value.

    Args:
        predictor: (networks,).
        outcomes: (..., networks), each explained on its own.

    Returns:
        (...), in [0, 1]; 1 where nothing varies.
    """
    _, place = np.unique(np.asarray(predictor), return_inverse=True)
    outcomes = np.asarray(outcomes, np.float64)
    constant = np.ptp(outcomes, axis=-1) == 0

    # means over the networks of each value, and what they leave unexplained
    values = (place[:, None] == np.arange(place.max() + 1)).astype(float)
    count = values.sum(0)
    centred = outcomes - outcomes.mean(-1, keepdims=True)
    means = centred @ values / count
    total = np.sum(np.square(centred), axis=-1)
    within = total - np.square(means) @ count

    # what the nearest rising and falling functions of the values leave of the means
    left = [
        np.square(means - sign * _rising(sign * means, count)) @ count
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
        weights: (count,), positive.
    """
    place = np.arange(len(weights))
    ordered = place[:, None] <= place  # j ≤ k

    # means from j to k, (..., j, k)
    until = np.cumsum(values * weights, axis=-1)
    before = until - values * weights
    size = np.cumsum(weights) - (np.cumsum(weights) - weights)[:, None]
    sums = until[..., None, :] - before[..., :, None]
    means = np.where(ordered, sums / np.where(ordered, size, 1), np.inf)

    # the smallest over k ≥ i, then the largest over j ≤ i
    smallest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
    return np.where(ordered, smallest, -np.inf).max(-2)


def fractions(predictors: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Return what each predictor explains beyond chance, for each draw of the outcomes.

    A predictor of more values fits noise better, so that (f − c)/(1 − c) is told: f is
    ``monotone``, and c its mean over permutations of the first outcomes: all of them
    if these are few, else random ones.

    Args:
        predictors: (predictors, networks).
        outcomes: (draws, networks), the first as measured.

    Returns:
        (predictors, draws): 0 is chance, 1 is all.
    """
    rng = np.random.default_rng(0)
    found = []
    for predictor in predictors:
        chance = monotone(predictor, _permutations(outcomes[0], rng)).mean()
        explained = monotone(predictor, outcomes)
        beyond = explained - chance
        found.append(beyond / (1 - chance) if chance < 1 else 0 * explained)
    return np.array(found)


def _permutations(outcome: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return orders of (networks,) outcomes, (orders, networks)."""
    if math.factorial(len(outcome)) <= PERMUTATIONS:
        return np.array(list(itertools.permutations(outcome)))
    return np.array([rng.permutation(outcome) for _ in range(PERMUTATIONS)])


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
