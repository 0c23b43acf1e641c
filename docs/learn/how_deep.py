# %% [markdown]
# # How deep may it be?
#
# Gradients of a deep network vanish or explode for two reasons. The weights may have
# the wrong scale, so that each layer loses or gains some factor. That is repaired by a
# *gain*. But even with the right gain the norm is random, and its spread grows with
# depth. That sets a largest depth for each width. This page computes both.
#
# Here is what counts as stable: at most a *share* of 5% of the initialisations change
# norms by more than a *factor* of 10, up or down. Both numbers are arguments of all
# functions below.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

from lognorm_jax import advice, ensembles, masks, networks, paths, sampling, weights

# %% [markdown]
# ## The right gain
#
# Weights of standard deviation $g/\sqrt{\text{fan-in}}$ keep the mean square of
# activations if $g=1/\sqrt{E\,\varphi(z)^2}$, and that of gradients if
# $g=1/\sqrt{E\,\varphi'(z)^2}$, for standard normal $z$.

# %%
for name in ("relu", "tanh", "gelu"):
    gains = advice.gains(name)
    print(f"{name:5} forward {gains.forward:.4f}, backward {gains.backward:.4f}")

# %% [markdown]
# For ReLU the two agree. For tanh and GELU they do not, so no gain keeps both.
#
# Frameworks have defaults that are not these. `advice.defaults` says what they do to
# gradients of ReLU networks, as the mean of $\ln R$ in a wide layer, and after how many
# layers a factor of 10 is lost.

# %%
for row in advice.defaults("relu"):
    print(
        f"{row.framework:8} {row.law:24} ln E R {row.log_ratio:6.3f}, depth {row.depth}"
    )

# %% [markdown]
# ## The spread that is left
#
# With the right gain the log-norm of a ReLU network has variance about $5\beta$, with
# $\beta=d/n$ for $d$ layers of width $n$. So the probability of a large change is
# known: `advice.law` is the law of the log-norm, and `advice.outside` the probability
# that it gives to changes by more than the factor.

# %%
width = 128
for depth in (10, 100, 1000):
    law, source = advice.law(width, depth)
    print(f"depth {depth:4}: {advice.outside(law):.2e}  ({source})")

# %% [markdown]
# Check one of them by sampling. The share is a mean of zeros and ones, and its standard
# error is $\sqrt{q(1-q)/N}$.

# %%
deep = ensembles.Ensemble((width,) * 101, weights.normal(), masks.relu())
logs = sampling.sample(paths.transport(deep), jax.random.key(0), 50_000).log_norm
share = np.mean(np.abs(logs) > 2 * np.log(10))  # the log of the squared norm
error = np.sqrt(share * (1 - share) / len(logs))
print(f"depth 100, sampled: {share:.4f} ± {error:.4f}")

# %% [markdown]
# Two changes of the architecture lower the spread.
#
# * **Orthogonal weights.** The variance is about $3\beta$ in place of $5\beta$: what is
#   left comes from the masks.
# * **Residual blocks** $z\mapsto\sqrt{1-\lambda^2}\,z+\lambda\cdot\text{branch}(z)$.
#   With $\lambda^2=1/2$ the variance still grows in proportion to the depth. With
#   $\lambda^2=1/d$ it stays small at any depth.


# %%
def residual_law(depth, square):  # square: λ²
    scales = {"skip_scale": (1 - square) ** 0.5, "branch_scale": square**0.5}
    return networks.limit_law(networks.residual(width, depth, "balanced", **scales))


depths = np.geomspace(10, 1000, 13).astype(int)
orthogonal = weights.orthogonal()
found = {
    "ReLU": [advice.law(width, d)[0] for d in depths],
    "ReLU, orthogonal": [advice.law(width, d, "relu", orthogonal)[0] for d in depths],
    "residual, λ² = 1/2": [residual_law(d, 1 / 2) for d in depths],
    "residual, λ² = 1/d": [residual_law(d, 1 / d) for d in depths],
}

# %%
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
for name, found_laws in found.items():
    shares = [advice.outside(law) for law in found_laws]
    panel.loglog(depths, shares, label=name)
panel.axhline(0.05, color="0.4", linestyle=":", label="5%")
panel.set(xlabel="depth (layers or blocks)", ylim=(1e-6, 2))
panel.set_ylabel("P(norm changes by more\nthan a factor 10)")
panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="width 128")
plt.show()

# %% [markdown]
# The curve of the last kind lies below the axis: its probability stays too small to be
# drawn. Here it is at the largest depth.

# %%
f"{advice.outside(found['residual, λ² = 1/d'][-1]):.1e}"

# %% [markdown]
# ## The largest depth, the smallest width, the largest branch
#
# Where a curve crosses 5% is what you may afford. `advice.depth` finds the depth for a
# width, and `advice.narrowest` the width for a depth.

# %%
print(advice.depth(width))
print(advice.depth(width, weight_law=orthogonal))
print(advice.narrowest(200))

# %% [markdown]
# Only $\beta$ matters, to a first approximation. So the largest depth is in proportion
# to the width.

# %%
sizes = np.array([32, 128, 512])
normal_depths = np.array([advice.depth(int(n)).value for n in sizes])
print("depth / width:", (normal_depths / sizes).round(2))

# %% [markdown]
# `advice.branch_scale` gives the largest $\lambda$ at which residual blocks are stable.
# Compare it with $1/\sqrt d$, which is safe:

# %%
for depth in (100, 1000, 10_000):
    scale = advice.branch_scale(width, depth)
    print(f"depth {depth:5}: λ up to {scale:.3f}, 1/√d = {depth**-0.5:.3f}")

# %% [markdown]
# ## What to change
#
# `advice.advise` puts it together for one network: say, width 128 and depth 200.

# %%
print(advice.advise(width, 200))

# %% [markdown]
# In words: first set the gain. If the network is deeper than its width allows, make it
# wider, take orthogonal weights, or use residual blocks with a small branch. On the
# command line the same table is `lognorm advise --width 128 --depth 200`.
#
# ## What next
#
# * [Exact laws and moments](exact.md): how exact these probabilities are.
# * [Probe and audit your model](probe_and_audit.md): measure a model of your own.
# * [Theory](../theory/index.md): why it is 5β, and 3β for orthogonal weights.
