"""What ``throughput`` times: ways to sample products of random matrices, and ways to
train.

Each way is a function of how many paths, seeds or steps, and the least number of them.
"""

import functools
import importlib.util
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _machine
from lognorm_jax import (
    ensembles,
    losses,
    masks,
    networks,
    paths,
    sampling,
    training,
    weights,
)

LIVE = 1 << 16  # increments in a block of transport paths, roughly
STEPS, BATCH, INPUTS, CLASSES = 20, 64, 64, 10  # of each training
BLOCKS = 4  # of each device or core, in a run, at the least: else some would stand idle


def timed(function) -> float:
    """Return the seconds that a function and its result take."""
    started = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - started


def least(block: int) -> int:
    """Return the least number of paths of a run in blocks: every multiple keeps all
    devices busy, and all cores.

    Each gets BLOCKS of them, and as many as any other.
    """
    cores = _machine.cores() if jax.default_backend() == "cpu" else 0
    return BLOCKS * max(cores, len(jax.devices())) * block


def numpy_loop(rng, width, depth, num_samples):
    """Return log_norms of ReLU mask products by the loop one would write first, in
    float32.
    """
    log_norms = np.zeros(num_samples)
    for sample in range(num_samples):
        x = np.full(width, width**-0.5, np.float32)
        for _ in range(depth):
            W = rng.standard_normal((width, width), np.float32) * np.float32(
                (2 / width) ** 0.5
            )
            x = (rng.random(width, np.float32) < 0.5) * (W @ x)
            square = x @ x
            if square == 0:
                log_norms[sample] = -np.inf
                break
            log_norms[sample] += np.log(square)
            x /= np.sqrt(square)
    return log_norms


def torch_batches(width, depth, num_samples, batch):
    """Return the same log_norms by batches of products in PyTorch, in float32."""
    import torch

    log_norms = torch.zeros(num_samples)
    for start in range(0, num_samples, batch):
        size = min(batch, num_samples - start)
        x = torch.full((size, width, 1), width**-0.5)
        for _ in range(depth):
            W = torch.randn(size, width, width)
            x = (torch.rand(size, width, 1) < 0.5) * torch.bmm(W, x)
            square = (x * x).sum((1, 2))
            log_norms[start : start + size] += torch.log(square * (2 / width))
            x = x / torch.where(square > 0, square, 1).sqrt()[:, None, None]
    return log_norms.numpy()


def products(width, depth, key) -> dict[str, tuple]:
    """Return each way to sample paths of one shape: a function of their number, and the
    least.
    """
    ensemble = ensembles.Ensemble(
        (width,) * (depth + 1), weights.normal(), masks.relu()
    )
    signs = ensembles.Ensemble(ensemble.widths, weights.rademacher(), masks.relu())
    x, rng = np.ones(width), np.random.default_rng(0)
    network = networks.relu_mlp(ensemble.widths, bias_scale=0.1)
    transport, block = paths.transport(ensemble), 1 << (LIVE // depth).bit_length()
    made = {
        "transport": (sampling.stream, transport, block),
        "transport, kept": (sampling.sample, transport, block),
    }
    block = 64 if width < 500 else 4
    gram = paths.gram(network, x, np.arange(width))
    made |= {
        "dense normal": (sampling.sample, paths.dense(ensemble), block),
        "dense Rademacher": (sampling.sample, paths.dense(signs), block),
        "network jvp": (sampling.sample, paths.jacobian(network, x, x), block),
        "network gram": (sampling.sample, gram, 16 * block),
    }

    ways = {}
    for name, (engine, path, block) in made.items():
        run = functools.partial(engine, path, key, block_size=block)
        ways[name] = run, least(block)
    ways["NumPy loop"] = functools.partial(numpy_loop, rng, width, depth), 1
    if importlib.util.find_spec("torch"):
        batch = fastest_batch(width)
        run = functools.partial(torch_batches, width, depth, batch=batch)
        ways["PyTorch"] = run, batch
    return ways


def fastest_batch(width: int) -> int:
    """Return how many products at once PyTorch is fastest with, of those that fit."""
    fitting = [b for b in (1, 16, 64, 256) if b * width**2 <= 1 << 20]
    seconds = {
        # each twice, of which the second counts: the first warms up
        b: timed(lambda b=b: torch_batches(width, 2, b, b)) / b
        for b in 2 * fitting
    }
    return min(seconds, key=seconds.get)


def training_data() -> tuple[np.ndarray, np.ndarray]:
    """Return batches of normal inputs and random labels."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((STEPS, BATCH, INPUTS), np.float32)
    return inputs, rng.integers(0, CLASSES, (STEPS, BATCH))


def operations(width, depth) -> int:
    """Return the multiplications and additions in the products of one step of training.

    One product forward, two backward; no gradient by the inputs. What belongs to single
    vectors or to entries, as all that a History adds, is a hundredth of it.
    """
    first, rest = INPUTS * width, width * width * (depth - 1) + width * CLASSES
    return 2 * BATCH * (2 * first + 3 * rest)


def torch_training(width, depth, num_seeds, threads):
    """Train by the loop one would write in PyTorch; return loss and a gradient norm of
    each step.

    One seed after another, as such loops are written; autograd, plain SGD,
    cross-entropy.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    inputs, labels = map(torch.tensor, training_data())
    found = []
    for seed in range(num_seeds):
        torch.manual_seed(seed)
        sizes, modules = (INPUTS, *(width,) * depth, CLASSES), []
        for size, following in itertools.pairwise(sizes):
            modules += [torch.nn.Linear(size, following), torch.nn.ReLU()]
        network = torch.nn.Sequential(*modules[:-1])
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
        for x, y in zip(inputs, labels, strict=True):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(network(x), y)
            loss.backward()
            found.append((loss.item(), network[0].weight.grad.norm().item()))
            optimizer.step()
    torch.set_num_threads(before)
    return np.array(found)


def bare_path(network, optimizer, batches):
    """Return key -> loss and a gradient norm of each step: training without a
    History.
    """

    def objective(params, x, y):
        return losses.cross_entropy(
            jax.vmap(functools.partial(network.apply, params))(x), y
        ).mean()

    def step(carry, batch):
        params, state = carry
        loss, gradient = jax.value_and_grad(objective)(params, *batch)
        updates, state = optimizer.update(gradient, state, params)
        norm = jnp.linalg.norm(gradient.trained[0]["weight"][0])
        return (optax.apply_updates(params, updates), state), (loss, norm)

    def path(key):
        params = network.init(key)
        return jax.lax.scan(step, (params, optimizer.init(params)), batches)[1]

    return path


def products_path(width, depth):
    """Return key -> number: the matrix products of training alone, three a layer and
    step.
    """

    def layer(carry, weight):
        x, back = carry
        forward, back = jnp.tanh(x @ weight), back @ weight.T
        return (forward, back), (x.T @ back)[0, 0]

    def path(key):
        weight = jax.random.normal(key, (depth, width, width)) / width**0.5

        def step(carry, _):
            return jax.lax.scan(layer, carry, weight)

        x = jnp.ones((BATCH, width))
        return jax.lax.scan(step, (x, x), length=STEPS)[1].sum()

    return path


def trainings(width, depth, key) -> dict[str, tuple]:
    """Return each way to train a network: a function of the number of seeds, and the
    least.
    """
    network = networks.mlp(
        (INPUTS, *(width,) * depth, CLASSES), bias_scale=0.1, head="linear"
    )
    batches, optimizer = training_data(), optax.sgd(1e-2)
    fit = training.trainer(network, optimizer, losses.cross_entropy, STEPS)
    whole = training.path(fit, batches)
    made = {
        "training": whole,
        "training, bare": bare_path(network, optimizer, batches),
        "training, products": products_path(width, depth),
    }
    ways, block = {}, max(16384 // width**2, 8)
    for name, path in made.items():
        run = functools.partial(sampling.sample, path, key, block_size=block)
        ways[name] = run, least(block)
    if importlib.util.find_spec("torch"):
        threads = fastest_threads(width)
        run = functools.partial(torch_training, width, depth, threads=threads)
        ways["training, PyTorch"] = run, 1
    return ways


def fastest_threads(width: int) -> int:
    """Return with how many threads PyTorch trains fastest: one, or all."""
    import torch

    seconds = {
        t: min(timed(lambda t=t: torch_training(width, 4, 1, t)) for _ in "ab")
        for t in dict.fromkeys((1, torch.get_num_threads()))
    }
    return min(seconds, key=seconds.get)


def steps(width, depth, key) -> dict[str, tuple]:
    """Return each way to take steps of gradient descent, with one seed: of their
    number, and 1.
    """
    network = networks.relu_mlp((INPUTS, *(width,) * depth, CLASSES), head="linear")
    batch = tuple(part[0] for part in training_data())
    measure = functools.partial(training.layer_log_norms, network)
    recorded = optax.chain(training.log_norms(measure), optax.sgd(1e-3))
    ways = {}
    for name, optimizer in (("step", optax.sgd(1e-3)), ("step, log_norms", recorded)):

        def objective(params):
            outputs = jax.vmap(functools.partial(network.apply, params))(batch[0])
            return losses.cross_entropy(outputs, batch[1]).mean()

        def step(carry, optimizer=optimizer):
            params, state = carry
            updates, state = optimizer.update(
                jax.grad(objective)(params), state, params
            )
            return optax.apply_updates(params, updates), state

        def run(carry, count, step=step):
            return jax.lax.fori_loop(0, count, lambda _, carry: step(carry), carry)

        params = network.init(key)
        ways[name] = (
            functools.partial(jax.jit(run), (params, optimizer.init(params))),
            1,
        )
    return ways
