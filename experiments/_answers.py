"""How long somebody waits for the first answer, and for the same question again.

``python -m experiments._answers LABEL`` asks one question of ``QUESTIONS`` twice, in a
process of its own, and prints what ``Answer`` holds, as JSON. The second time all is
made anew: ensembles, networks, optimizers, paths; a function of the user's own, such as
the model that is probed, is the same.
"""

import json
import os
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
import optax

from lognorm_jax import (
    ensembles,
    losses,
    masks,
    networks,
    paths,
    probes,
    sampling,
    training,
    weights,
)

FUNNEL = tuple(range(100, 69, -1))


class Answer(NamedTuple):
    """Seconds and programs compiled, of the first call and of the next."""

    first: float
    first_programs: int
    again: float
    again_programs: int


def _sampled(path, num_samples=1_000) -> None:
    sampling.sample(path, jax.random.key(0), num_samples)


def _product(widths) -> ensembles.Ensemble:
    return ensembles.Ensemble(widths, weights.normal(), masks.relu())


def _network(follow, widths) -> None:
    network = networks.relu_mlp(widths, bias_scale=0.1)
    x = np.linspace(0, 1, widths[0])
    _sampled(follow(network, x, x))


def _trained() -> None:
    network = networks.relu_mlp((16, *(32,) * 16), head="linear")
    fit = training.trainer(network, optax.sgd(0.01), losses.squared_error, 11)
    rng = np.random.default_rng(0)
    batches = rng.normal(size=(11, 16, 16)), rng.normal(size=(11, 16, 32))
    _sampled(training.path(fit, batches), 64)


def _model(key):
    scale = (2 / 30) ** 0.5
    matrices = scale * jax.random.normal(key, (10, 30, 30))
    return [lambda x, W=W: jax.nn.relu(W @ x) for W in matrices]


def _probed() -> None:
    inputs = jax.random.normal(jax.random.key(1), (8, 30))
    probes.probe(_model, inputs, jax.random.key(0))


QUESTIONS = {
    "dense, 30 × 10": lambda: _sampled(paths.dense(_product((30,) * 11))),
    "transport, 30 × 10": lambda: _sampled(paths.transport(_product((30,) * 11))),
    "network jvp, 30 × 10": lambda: _network(paths.jacobian, (64, *(30,) * 10)),
    "network gram, 30 × 10": lambda: _network(paths.gram, (64, *(30,) * 10)),
    "dense, widths 100 … 70": lambda: _sampled(paths.dense(_product(FUNNEL))),
    "network jvp, widths 100 … 70": lambda: _network(paths.jacobian, FUNNEL),
    "network gram, widths 100 … 70": lambda: _network(paths.gram, FUNNEL),
    "training, 32 × 16, 11 steps, 64 seeds": _trained,
    "probe, 30 × 10": _probed,
}


def asked(label: str) -> Answer:
    """Return how long a question takes in a fresh process, which keeps no programs."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if name != "JAX_COMPILATION_CACHE_DIR"
    }
    command = [sys.executable, "-m", "experiments._answers", label]
    told = subprocess.run(command, env=variables, check=True, capture_output=True)
    return Answer(*json.loads(told.stdout))


def main(label: str) -> None:
    """Ask twice, and print the answer."""
    compiled = []

    def listen(event, duration, **_):
        del duration
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    answer = []
    for _ in range(2):
        compiled.clear()
        started = time.perf_counter()
        QUESTIONS[label]()
        answer += [time.perf_counter() - started, len(compiled)]
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
