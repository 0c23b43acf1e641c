# %% [markdown]
# # The martingale
#
# Why is the log-norm of a deep network nearly normal? It is a sum over layers. The
# terms are not independent unless the weights are normal, but they form a
# **martingale** once their drift is taken off. This page takes the sum apart, for
# weights that are not normal.
#
# Let $F_{i-1}$ be what is known after $i-1$ layers. Each term is split into what could
# be expected and a surprise:
#
# $$\ln\|Mu\|^2=\underbrace{\sum_i\bigl(\ln R_i-E[\ln R_i\mid F_{i-1}]\bigr)}_{\text{
# martingale}}+\underbrace{\sum_i E[\ln R_i\mid F_{i-1}]}_{\text{drift}} .$$

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

# %%
from lognorm_jax import (
    ensembles,
    exact,
    laws,
    martingales,
    masks,
    paths,
    sampling,
    summaries,
    weights,
)

# %% [markdown]
# ## Sample, and take apart
#
# The weights here are random signs, with ReLU masks. `paths.dense` follows a direction
# through 40 layers of width 64. `martingales.decompose` computes drift and martingale
# of each sample and layer.

# %%
widths = (64,) * 41
signs = ensembles.Ensemble(widths, weights.rademacher(), masks.relu())
trace = sampling.sample(paths.dense(signs), jax.random.key(0), 4_000)
parts = martingales.decompose(trace, signs)
{name: value.shape for name, value in parts._asdict().items()}

# %% [markdown]
# * `drift` is $E[\ln R_i\mid F_{i-1}]$ of each layer;
# * `martingale` is the running sum of the surprises;
# * `predictable_variance` is what is known in advance of the variance of $R_i$;
# * `bracket` is its running sum.
#
# Drift and martingale add up to the log-norm, sample by sample.

# %%
total = parts.drift.sum(1) + parts.martingale[:, -1]
float(np.abs(total - trace.log_norm).max())

# %% [markdown]
# ## Its mean is 0 at every layer
#
# A martingale has mean 0, whatever the layer. Divide the mean over samples by its
# standard error: the result should mostly be between −2 and 2.

# %%
mean = summaries.estimate(parts.martingale).mean
print((mean.value / mean.error)[[0, 9, 19, 29, 39]].round(1))

# %% [markdown]
# Surprises of different layers are uncorrelated, though they need not be independent.
# The correlation of neighbouring ones, over all layers, has a standard error of one
# over the square root of the number of pairs.

# %%
surprise = np.diff(parts.martingale, axis=1, prepend=0)
pairs = surprise[:, 1:] * surprise[:, :-1] / surprise.var()
print(f"correlation {pairs.mean():.4f} ± {1 / np.sqrt(pairs.size):.4f}")

# %% [markdown]
# ## Its variance is the bracket
#
# The variance of a sum of uncorrelated terms is the sum of their variances. So the
# variance of the martingale is the mean of its bracket, at every layer, to first order
# in one over the width. (The bracket is made of variances of $R_i$, and those of
# $\ln R_i$ differ in second order. `martingales.expansion` has that order, too.)

# %%
_, second_order = martingales.expansion(signs, trace.quartic, order=2)
variance = summaries.estimate(parts.martingale[:, -1]).variance
print(f"variance at the last layer {variance.value:.3f} ± {variance.error:.3f}")
print(f"mean of the bracket        {parts.bracket[:, -1].mean():.3f}")
print(f"to second order            {second_order.sum(1).mean():.3f}")
print(f"5β                         {5 * 40 / 64:.3f}")

# %% [markdown]
# The fan in the figure is two standard deviations wide, by the bracket: about 95% of
# the paths are inside at any one layer.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
layers, bracket = np.arange(1, 41), parts.bracket.mean(0)
fan = 2 * np.sqrt(bracket)
left.fill_between(layers, -fan, fan, color="0.9", label="± 2 √bracket")
left.plot(layers, parts.martingale[:20].T, linewidth=0.8)
left.set(xlabel="layer", ylabel="martingale")
left.legend(loc="upper left")
right.plot(layers, parts.martingale.var(0), label="variance of the martingale")
right.plot(layers, bracket, "--", label="mean of the bracket")
right.plot(layers, second_order.mean(0).cumsum(), ":", label="to second order")
right.set(xlabel="layer", ylabel="variance")
right.legend()
plt.show()

# %% [markdown]
# ## What the variance knows of the past
#
# Given the direction $x$ that reaches a layer of width $n$,
#
# $$\operatorname{Var}(R\mid x)=\frac1n\Bigl[\frac1p\bigl(3+(\mu_4-3)\,\kappa(x)\bigr)-1
# \Bigr],\qquad\kappa(x)=\frac{\|x\|_4^4}{\|x\|_2^4},$$
#
# with $p=1/2$ for ReLUs and $\mu_4$ the fourth moment of a standardised weight. The
# past enters through the quartic $\kappa(x)$ only. It is between $1/n$, for a direction
# spread over all coordinates, and 1, for a single coordinate. For a spread direction
# the weights hardly matter. For a coordinate they do. Here is
# $n\operatorname{Var}(R\mid x)$ in both cases:

# %%
kinds = (weights.rademacher(), weights.uniform(), weights.normal(), weights.laplace())
for kind in kinds:
    one = ensembles.Ensemble((64, 64), kind, masks.relu())
    spread, single = (
        64 * ensembles.predictable_variance(one, np.array([quartic]))[0]
        for quartic in (1 / 64, 1)
    )
    print(f"{kind.name:10} spread {spread:6.3f}, coordinate {single:6.3f}")

# %% [markdown]
# In a deep network only the first layer can meet a single coordinate. After it $\kappa$
# is of order $1/n$. Here is $n\kappa$ before each of the first four layers, from a
# coordinate on.

# %%
coordinate = np.eye(64)[0]
path = paths.dense(signs, coordinate)
from_coordinate = sampling.sample(path, jax.random.key(1), 1_000)
print((64 * from_coordinate.quartic.mean(0)[:4]).round(2))

# %% [markdown]
# (Random signs take a coordinate to coordinates of equal size, of which half survive:
# hence the 2.) In deeper layers $\kappa$ is about $3/(pn)=6/n$, whatever the weights.
# So the variance of a layer is $5/n+O(n^{-2})$, and the bracket is nearly the same for
# all samples:

# %%
last = parts.bracket[:, -1]
print(f"bracket: mean {last.mean():.4f}, standard deviation {last.std():.4f}")

# %% [markdown]
# ## Why the sum is nearly normal
#
# That is the martingale central limit theorem. It has two conditions. The bracket has
# to be nearly constant, as you just saw. And no single surprise may carry much of the
# variance: here each is one of 40 of equal size. Single surprises are skewed, and their
# sum is much less so. For normal weights, where the laws are exact, see how far one
# layer and the whole sum are from normal laws of their own mean and variance.

# %%
normal = ensembles.Ensemble(widths, weights.normal(), masks.relu())
for name, law in {
    "one layer": exact.increment_law(64, masks.relu()),
    "40 layers": exact.law(normal),
}.items():
    distance = laws.ks_distance(law, laws.normal(law.mean, law.variance))
    print(f"{name}: KS distance to a normal law {distance:.4f}")

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
grid = np.linspace(-4, 4, 200)
for panel, values, title in (
    (panels[0], surprise[:, 20], "surprise of one layer"),
    (panels[1], parts.martingale[:, -1], "sum over 40 layers"),
):
    standardised = (values - values.mean()) / values.std()
    panel.hist(standardised, bins=60, density=True, color="0.8", label="samples")
    panel.plot(grid, laws.normal(0, 1).pdf(grid), label="N(0, 1)")
    panel.set(xlabel=f"{title}, standardised", ylabel="density", xlim=(-4, 4))
    panel.legend()
plt.show()

# %% [markdown]
# ## The drift
#
# The drift of a layer is $-\tfrac12\operatorname{Var}(R\mid x)$ to first order, since
# $\ln(1+x)\approx x-x^2/2$ and $E[R\mid x]=1$. That is why the limit law has mean
# $-v/2$ if its variance is $v$. It pulls the typical norm down while the mean of the
# squared norm stays 1.

# %%
drift = parts.drift.sum(1)
print(f"drift: mean {drift.mean():.3f}, standard deviation {drift.std():.3f}")
print(f"first order, -5β/2: {-5 * 40 / 64 / 2:.3f}")

# %% [markdown]
# ## What next
#
# * [Exact laws and moments](exact.md): normal weights, where nothing is approximate.
# * [Why do deep networks lose their gradients?](lesson.md): the same, from scratch.
# * [Theory](../theory/index.md): the theorem and its sources.
