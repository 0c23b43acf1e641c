# %% [markdown]
# # The law of a network in ten minutes
#
# A ReLU network with fresh random weights stretches a small change of its input, or
# shrinks it. By how much is a matter of chance. This page shows how to predict the law
# of that factor from the shape of the network alone, how to sample it, and how to
# decide whether samples follow a law.
#
# Let $J$ be the Jacobian of the network at an input, $u$ a direction of length 1, and
# $R_i$ the factor by which layer $i$ changes the squared norm of what reaches it. The
# subject is the **log-norm**, the log of the *squared* norm:
#
# $$\ln\|Ju\|^2=\sum_{i=1}^{d}\ln R_i .$$
#
# Words and symbols are in the [glossary](../glossary.md).

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

# %%
from lognorm_jax import (
    ensembles,
    exact,
    laws,
    masks,
    networks,
    paths,
    sampling,
    summaries,
    weights,
)

# %% [markdown]
# ## An ensemble and its β
#
# An *ensemble* is a product of random layers $x\mapsto DWx$: a matrix $W$ of random
# weights, then a mask $D$. At initialisation a ReLU is a mask. Each entry of $D$ is 0
# or 1 with equal odds, independent of the rest. You give the widths $n_0,\dots,n_d$,
# the law of one weight, and the mask.

# %%
widths = (64, *(50,) * 20)  # 64 inputs, then 20 layers of 50 units
ensemble = ensembles.Ensemble(widths, weights.normal(), masks.relu())
ensembles.beta(ensemble)

# %% [markdown]
# That number is
#
# $$\beta=\sum_{i=1}^{d}\frac1{n_i},$$
#
# here 20/50. Depth makes it larger, width makes it smaller.
#
# ## The limit law
#
# For wide ReLU layers the log-norm is nearly normal, with variance $5\beta$ and mean
# $-5\beta/2$ (Hanin and Nica, 2020). Nothing else about the shape matters.

# %%
limit = ensembles.limit_law(ensemble)
limit.name

# %% [markdown]
# A log-norm is hard to picture. Half of it, exponentiated, is the factor of the norm
# itself. These are the 5%, 50% and 95% quantiles of that factor: one network in twenty
# lies below the first, and one in twenty above the last.

# %%
np.exp(limit.quantile([0.05, 0.5, 0.95]) / 2).round(3)

# %% [markdown]
# ## The exact law
#
# With normal weights the law is known exactly at any width. It costs tens of milliseconds
# for each distinct layer, and no simulation.

# %%
exact_law = exact.law(ensemble)
print(f"limit law: mean {limit.mean:.3f}, variance {limit.variance:.3f}")
print(f"exact law: mean {exact_law.mean:.3f}, variance {exact_law.variance:.3f}")
print(f"KS distance of the two: {laws.ks_distance(exact_law, limit):.4f}")

# %% [markdown]
# The KS distance is the largest difference between two distribution functions. It tells
# you what the limit costs at this shape.
#
# ## Samples, in three ways
#
# * `paths.dense` draws the matrices and masks, for any law of the weights.
# * `paths.transport` draws each $\ln R_i$ from its exact law, one random number a
#   layer, for normal weights. Take it where you want many samples.
# * `paths.jacobian` draws a real network with biases and differentiates it at an input.
#
# A *path* is a function of a random key. `sampling.sample` runs it many times.

# %%
network = networks.relu_mlp(widths, bias_scale=0.1)
x = np.linspace(0, 1, 64)
sampled = {
    "dense": sampling.sample(paths.dense(ensemble), jax.random.key(0), 2_500),
    "transport": sampling.sample(paths.transport(ensemble), jax.random.key(1), 100_000),
    "network": sampling.sample(paths.jacobian(network, x, x), jax.random.key(2), 2_500),
}
sampled["dense"].increment.shape  # ln R of each sample and layer

# %% [markdown]
# A mean of samples is not exact, so give it with its **standard error**: the standard
# deviation that the estimate itself has. `summaries.estimate` does that for mean,
# variance and the share of dead paths (see below). The truth is within two standard
# errors about 95 times in 100.

# %%
for name, trace in sampled.items():
    found = summaries.estimate(trace.log_norm)
    mean, variance = found.mean, found.variance
    print(
        f"{name:10} mean {mean.value:.3f} ± {mean.error:.3f}, "
        f"variance {variance.value:.3f} ± {variance.error:.3f}"
    )
logs = sampled["transport"].log_norm  # of the most samples, for later
print(f"exact law  mean {exact_law.mean:.3f}, variance {exact_law.variance:.3f}")

# %% [markdown]
# The real network has biases, and it was differentiated at one fixed input. Its law is
# that of the product of random matrices all the same: neither biases nor the input
# matter.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
grid = np.linspace(-8, 5, 400)
left.hist(logs, bins=100, density=True, color="0.8", label="samples")
left.plot(grid, exact_law.pdf(grid), label="exact law")
left.plot(grid, limit.pdf(grid), "--", label="limit law")
left.set(xlabel=r"log-norm $\ln\|Ju\|^2$", ylabel="density", xlim=(-8, 5))
right.plot(grid, exact_law.cdf(grid) - limit.cdf(grid), label="exact law")
gap = laws.empirical(logs).cdf(grid) - limit.cdf(grid)
right.plot(grid, gap, color="0.6", label="samples")
right.axhline(0, color="0.6", linewidth=0.8)
right.set(xlabel=r"log-norm $\ln\|Ju\|^2$", ylabel="cdf less that of the limit law")
left.legend()
right.legend()
plt.show()

# %% [markdown]
# On the left the two laws can hardly be told apart. On the right you see their
# difference, and that the samples follow the exact law.
#
# ## Do samples follow a law?
#
# `laws.compare` answers with one of three verdicts.
#
# * **pass**: no departure was found, and one of 0.05 would have been seen.
# * **fail**: the distance is surely larger than what you allow.
# * **underpowered**: no departure was found, but there are too few samples to say much.
#   `needed` tells how many would do.

# %%
for name in ("dense", "transport", "network"):
    verdict = laws.compare(sampled[name].log_norm, exact_law).verdict
    print(f"{name} against the exact law: {verdict}")
few = laws.compare(sampled["dense"].log_norm[:200], exact_law)
print(f"200 samples: {few.verdict}, {few.needed} needed")

# %% [markdown]
# The limit law is an approximation, so equality is too much to ask of it. With many
# samples it fails. State what theory allows it as the `tolerance`: its distance is of
# the order of one over the width.

# %%
strict = laws.compare(logs, limit)
allowed = laws.compare(logs, limit, tolerance=1 / 50)
low, high = strict.interval
print(f"distance {strict.distance:.4f}, between {low:.4f} and {high:.4f}")
print(f"no tolerance: {strict.verdict}; tolerance 1/50: {allowed.verdict}")

# %% [markdown]
# ## What `fan` does
#
# Weights need a scale. With `fan="out"`, the default, a weight of layer $i$ has
# variance $2/n_i$, and the squared norm is kept in mean. With `fan="in"`, He's
# initialisation, it has $2/n_{i-1}$. That adds $\ln(n_i/n_{i-1})$ to each increment and
# $\ln(n_d/n_0)$ in all. The law is shifted, and its shape stays.

# %%
shape = (784, 300, 100, 10)
means = {}
for fan in ("out", "in"):
    law = exact.law(ensembles.Ensemble(shape, weights.normal(), masks.relu(), fan))
    means[fan] = law.mean
    print(f"fan {fan!r}: mean {law.mean:.4f}, variance {law.variance:.4f}")
print(f"shift {means['in'] - means['out']:.4f}, ln(10/784) = {np.log(10 / 784):.4f}")

# %% [markdown]
# ## Dead paths
#
# In a narrow layer all ReLUs may be off at once. Then the norm is 0, and the log-norm
# is $-\infty$. That is a value, not an error. A ReLU layer of $n$ units is dead with
# probability $2^{-n}$.

# %%
narrow = ensembles.Ensemble((4,) * 11, weights.normal(), masks.relu())
path = paths.transport(narrow)
narrow_logs = sampling.sample(path, jax.random.key(3), 20_000).log_norm
dead = summaries.estimate(narrow_logs).dead_mass
print(narrow_logs[:5].round(2))
print(f"dead: {dead.value:.4f} ± {dead.error:.4f}")
print(f"theory: {1 - (1 - 2**-4) ** 10:.4f}, exact law: {exact.law(narrow).atom:.4f}")

# %% [markdown]
# Means and variances of log-norms are always those of the paths that survive. The dead
# ones are counted apart, in `dead_mass` of a summary and in `atom` of a law.
#
# ## What next
#
# * [Probe and audit your model](probe_and_audit.md): the same for a model of your own.
# * [How deep may it be?](how_deep.md): what to do with these numbers.
# * [Theory](../theory/index.md): where the laws come from.
