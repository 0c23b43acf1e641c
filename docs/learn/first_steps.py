# %% [markdown]
# # First steps of training
#
# The laws of this library are about initialisation. What is left of them when training
# begins? This page trains many small networks, each from its own seed, and looks at the
# norms of their gradients: before the first step, and some steps later.

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

# %%
from lognorm_jax import (
    datasets,
    ensembles,
    exact,
    laws,
    losses,
    masks,
    networks,
    paths,
    sampling,
    summaries,
    training,
    weights,
)

# %% [markdown]
# ## Data, network, trainer
#
# The data are two clouds of points in 16 dimensions. The network has eight ReLU layers
# of width 16 and a linear head for two classes. `training.trainer` makes a function
# that trains one fresh network, with any optimizer of optax.

# %%
points, labels = datasets.clouds(jax.random.key(0), 512, 16)
batches = datasets.batches(
    jax.random.key(1), points, labels, num_steps=21, batch_size=32
)
network = networks.mlp((16, *(16,) * 8, 2), head="linear")
fit = training.trainer(network, optax.adam(3e-3), losses.cross_entropy, num_steps=21)
f"β = {ensembles.beta(network.ensemble)}"

# %% [markdown]
# `training.path` makes it a path: a function of a key, like all others. So
# `sampling.sample` runs it for many seeds. All seeds see the same batches.
#
# With `observe=` you add what you want to know of the trained parameters. Here that is
# the error on all the data. Give it the parameters of a network, and it returns any
# arrays.


# %%
def error_rate(params):
    outputs = points
    for layer in network.layers(params):
        outputs = layer(outputs)
    return jnp.mean(outputs.argmax(-1) != labels)


path = training.path(fit, batches, observe=error_rate)
history, errors = sampling.sample(path, jax.random.key(2), 2_048)
{name: value.shape for name, value in history._asdict().items()}

# %% [markdown]
# A `History` has what was so *before* each step: seeds, steps and, where it says so,
# layers.
#
# * `loss`: the mean over the batch;
# * `log_gradient`: $\ln\|\partial L/\partial W_i\|^2$ of each layer;
# * `increment`: $\ln R_i$ of the Jacobian at a probe, by default the first input; its
#   sum over layers is `history.log_norm`;
# * `update_ratio`: $\|\Delta W_i\|/\|W_i\|$ of the step that follows;
# * `finite`: whether all numbers were finite so far.

# %%
print(f"all finite: {history.finite.all()}")
for step in (0, 10, 20):
    mean = summaries.estimate(history.loss[:, step]).mean
    print(f"mean loss before step {step:2}: {mean.value:.3f} ± {mean.error:.3f}")
print("quantiles of the error:", np.quantile(errors, [0.1, 0.5, 0.9]).round(3))

# %% [markdown]
# ## Before the first step: the law
#
# Before the first step the Jacobian obeys the exact law.

# %%
law = exact.law(network.ensemble)
print(laws.compare(history.log_norm[:, 0], law, resolution=0.08))

# %% [markdown]
# Gradients inherit it. The gradient of a middle layer is a product of what runs forward
# to it and of what runs back to it, and together they pass through all the other hidden
# layers. So the variance over seeds of its log should be about that of the log-norm of
# the hidden layers, plus something for head and data.

# %%
hidden = ensembles.Ensemble((16,) * 9, weights.normal(), masks.relu())
middle = summaries.estimate(history.log_gradient[:, :, 4]).variance
print(f"variance of the log-norm, hidden layers: {exact.law(hidden).variance:.2f}")
for step in (0, 10, 20):
    value, error = middle.value[step], middle.error[step]
    print(f"ln‖∂L/∂W‖² before step {step:2}: variance {value:.2f} ± {error:.2f}")
apart = np.exp(np.sqrt(2 * middle.value[0]) / 2)
print(f"two seeds before the first step: a factor of {apart:.1f} apart")

# %% [markdown]
# The last line is about the norm itself. The difference of the logs of two seeds has
# twice the variance; its square root is a typical difference, and half of that is one
# in the log of the norm. Training evens such differences out in part.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
steps = np.arange(21)
bands = np.quantile(history.log_gradient[:, :, 4], [0.05, 0.25, 0.5, 0.75, 0.95], 0)
left.fill_between(steps, bands[0], bands[4], color="0.9", label="5% to 95%")
left.fill_between(steps, bands[1], bands[3], color="0.75", label="25% to 75%")
left.plot(steps, bands[2], label="median")
left.set(xlabel="step", ylabel=r"$\ln\|\partial L/\partial W\|^2$, layer 5")
left.legend(fontsize="small")
right.errorbar(steps, middle.value, 2 * middle.error, capsize=2)
right.set(xlabel="step", ylabel="its variance over seeds (± 2 s.e.)", ylim=(0, None))
plt.show()

# %% [markdown]
# ## Against β
#
# Networks of other shapes and equal $\beta$ vary alike. For the state before the first
# step no training is needed: `paths.gradients` takes the loss as a function of the
# outputs. With `drawn=True` it draws all weights, which is quick for small networks.


# %%
def middle_variance(width, depth):
    net = networks.mlp((16, *(width,) * depth, 2), head="linear")
    x, y = batches[0][0], batches[1][0]
    loss = functools.partial(losses.cross_entropy, targets=y)
    path = paths.gradients(net, x, lambda out: loss(out).mean(), drawn=True)
    logs = sampling.sample(path, jax.random.key(3), 2_000)[:, depth // 2]
    return summaries.estimate(logs).variance


# %%
found = {(32, 8): middle_variance(32, 8), (32, 16): middle_variance(32, 16)}
found[16, 8] = summaries.Estimate(middle.value[0], middle.error[0])
for (width, depth), variance in found.items():
    beta = depth / width
    print(
        f"width {width}, depth {depth:2}: β = {beta:.2f}, 5β = {5 * beta:.2f}, "
        f"variance {variance.value:.2f} ± {variance.error:.2f}"
    )

# %% [markdown]
# The variance is set by $\beta$. The two networks of $\beta=1/2$ are close to one
# another, though one is twice as wide and as deep, and far from that of $\beta=1/4$.
# What it has beyond $5\beta$ comes from head and data, and from widths that are far
# from infinite.
#
# ## In your own loop
#
# `training.log_norms()` records log squared norms inside any chain of optax, and
# changes nothing. Here is a complete loop. Put it first in the chain to see the
# gradients.


# %%
def loss_of(params, x, y):
    hidden = jax.nn.relu(x @ params["first"])
    return losses.cross_entropy(hidden @ params["second"], y).mean()


first, second = jax.random.split(jax.random.key(4))
params = {
    "first": jax.random.normal(first, (16, 32)) * (2 / 16) ** 0.5,
    "second": jax.random.normal(second, (32, 2)) * (1 / 32) ** 0.5,
}
optimizer = optax.chain(training.log_norms(), optax.adam(1e-2))
state = optimizer.init(params)

# %%
value_and_grad = jax.jit(jax.value_and_grad(loss_of))
update = jax.jit(optimizer.update)
for x, y in zip(*batches, strict=True):
    loss, gradient = value_and_grad(params, x, y)
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
recorded = state[0]
print(f"last loss {loss:.3f}")
print("ln‖gradient‖² of", *params, "in the last step:", recorded.log_norm.round(2))
print("its mean over steps:", np.asarray(recorded.mean).round(2))
print("its variance over steps:", np.asarray(recorded.variance).round(2))

# %% [markdown]
# ## Over learning rates
#
# A learning rate may be an array of JAX. So map over rates, inside the path: every seed
# is trained at every rate, and nothing compiles twice. A seed whose numbers stop being
# finite has a loss of $+\infty$ from there on. That spoils quantiles that are
# interpolated, so take them from the sorted losses.


# %%
rates = np.geomspace(1e-3, 1, 7).astype("float32")


def last_loss(rate, key):
    fit = training.trainer(network, optax.sgd(rate), losses.cross_entropy, num_steps=21)
    return training.path(fit, batches)(key).loss[-1]


def over_rates(key):
    return jax.vmap(last_loss, (0, None))(rates, key)


# %%
final = sampling.sample(over_rates, jax.random.key(5), 128)
low, median, high = np.sort(final, 0)[[12, 64, 115]]  # of 128
print("seeds with numbers that are not finite:", np.isinf(final).sum(0))

# %%
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
panel.fill_between(rates, low, high, color="0.9", label="10% to 90% of the seeds")
panel.plot(rates, median, marker="o", label="median over 128 seeds")
panel.set(xscale="log", xlabel="learning rate", ylabel="loss before step 20 (nats)")
panel.set_ylim(0, 1.4)
panel.legend()
plt.show()

# %% [markdown]
# Where more than half of the seeds are lost, the median is infinite, and the line ends.
#
# ## What next
#
# * [Transformers of any size](transformers.md): gradients of architectures of your own.
# * [How deep may it be?](how_deep.md): choose β before you train.
# * [The law of a network in ten minutes](law.md): what β is.
