"""What is claimed of the collapse in ``training_stability``: which number of a
network's shape explains what its log-variances differ by, before the first step and
after fifty.
"""

import itertools

from experiments import _check, _explained

PREDICTORS = ("β", "depth", "width")
OUTCOMES = {
    "log_norm": "Var ln ‖J u‖²",
    "log_gradient": "Var ln ‖∂L/∂W‖²",
    "single": "the same, one image",
}
SHOWN = (0, 1, 2, 5, 10, 20, 35, 50)  # steps at which the collapse is measured
# steps whose shares are in the table
PROFILE = (0, 10, 50)
# what a predictor must explain of an outcome at a step, with all of its interval
LEAST = {
    **{("β", outcome, 0): 0.9 for outcome in OUTCOMES},
    ("β", "log_norm", 50): 0.8,
    ("β", "log_gradient", 50): 0.8,
    ("depth", "log_gradient", 50): 0.9,
}
BEYOND = {  # by how much a predictor must explain more than another one, likewise
    **{
        ("β", other, outcome, 0): 0.0
        for outcome, other in itertools.product(OUTCOMES, ("depth", "width"))
    },
    ("depth", "β", "log_gradient", 50): -0.05,  # as much, or more
}


def rows(results) -> list[_check.Row]:
    """Hold what each predictor explains of the log-variances against what is claimed of
    it.

    results: "explained/OUTCOME", (predictors, steps of SHOWN, 1 + repeats), for each
    outcome.
    """
    found = []
    for outcome, label in OUTCOMES.items():
        by_step = dict(
            zip(SHOWN, results["explained"][outcome].swapaxes(0, 1), strict=False)
        )
        for step in (step for step in PROFILE if step in by_step):
            share = dict(zip(PREDICTORS, by_step[step], strict=True))
            for predictor in PREDICTORS:
                bound = LEAST.get((predictor, outcome, step))
                case = f"explained by {predictor}, step {step}"
                told = _explained.interval(share[predictor])
                found.append(_check.above(case, label, *told, bound))
            for (one, other, *place), bound in BEYOND.items():
                if place == [outcome, step]:
                    told = _explained.interval(share[one] - share[other])
                    case = f"{one} beyond {other}, step {step}"
                    found.append(_check.above(case, label, *told, bound))
    return found
