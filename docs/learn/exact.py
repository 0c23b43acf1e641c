# %% [markdown]
# # Exact laws and moments
#
# With normal weights much is known about deep ReLU networks without any simulation and
# without any limit. This page goes through it: the law of the log-norm, its cumulants,
# moments as fractions, volumes, Lyapunov exponents, the participation ratio, and the
# tangent kernel.

# %%
from fractions import Fraction

import jax
import matplotlib.pyplot as plt
import numpy as np

# %%
from lognorm_jax import (
    ensembles,
    exact,
    kernels,
    laws,
    masks,
    moments,
    sampling,
    spectra,
    summaries,
    weights,
)

# %% [markdown]
# ## The exact law of a log-norm
#
# A ReLU layer of width $n$ keeps $B$ of its units, and $B$ is binomial with odds 1/2.
# Given $B$, the factor of the squared norm is $R=\chi^2_B/(n/2)$, whatever came before.
# So the log-norm is a sum of independent terms of known law, and `exact.law` inverts
# its characteristic function.


# %%
def square(n):  # n layers of width n: β = 1
    return ensembles.Ensemble((n,) * (n + 1), weights.normal(), masks.relu())


law = exact.law(square(64))
limit = ensembles.limit_law(square(64))
print(f"mean {law.mean:.6f}, variance {law.variance:.6f}")
print(f"median factor of the norm: {np.exp(law.quantile(0.5) / 2):.4f}")
print(f"P(norm shrinks by more than 10) = {law.cdf(-2 * np.log(10)):.6f}")
print(f"the limit law says {limit.cdf(-2 * np.log(10)):.6f}")

# %% [markdown]
# The cdf is right to about $10^{-12}$. Tails far out are right as well: `law.sf` is the
# upper one. How likely is a norm that grows by a factor of $10^{5}$?

# %%
far = 2 * np.log(1e5)
f"exact {law.sf(far):.3e}, limit law {limit.sf(far):.3e}"

# %% [markdown]
# ## How wrong is the limit law?
#
# The KS distance is the largest difference of two distribution functions. Compare the
# exact law at $\beta=1$ with three approximations:
#
# * the limit law $N(-5\beta/2,5\beta)$;
# * a normal law with the *exact* mean and variance;
# * the Edgeworth law, which takes the third and fourth cumulant as well.

# %%
sizes = np.array([16, 32, 64, 128, 256])
distances = {"limit law": [], "normal, exact moments": [], "Edgeworth": []}
for n in sizes:
    cumulants = exact.cumulants(square(n), order=4)
    atom = ensembles.dead_mass(square(n))
    guesses = (
        ensembles.limit_law(square(n)),
        laws.normal(*cumulants[:2]),
        laws.edgeworth(cumulants, atom),
    )
    for row, guess in zip(distances.values(), guesses, strict=True):
        row.append(laws.ks_distance(exact.law(square(n)), guess))

# %%
for name, row in distances.items():
    print(f"{name:22} n · KS =", *(f"{value:.2g}" for value in sizes * row))

# %% [markdown]
# For the limit law $n\cdot\mathrm{KS}$ settles, so its distance falls like $1/n$. The
# proven bound is of the order $n^{-1/5}$, which says much less. The normal law of exact
# moments is nearer, and the Edgeworth law far nearer.

# %%
grid = np.linspace(-14, 8, 300)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for name, row in distances.items():
    left.loglog(sizes, row, marker="o", markersize=4, label=name)
left.loglog(sizes, 1 / sizes, color="0.6", linestyle=":", label="1/n")
left.set(xlabel="width n", ylabel="KS distance to exact law", ylim=(1e-12, 0.3))
left.set_xscale("log", base=2)
left.legend(fontsize="small", loc="lower left")
for n in (16, 64):
    right.plot(grid, exact.law(square(n)).pdf(grid), label=f"exact, n = {n}")
right.plot(grid, limit.pdf(grid), "--", color="0.4", label="limit law")
right.set(xlabel=r"log-norm $\ln\|Ju\|^2$", ylabel="density")
right.legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Cumulants
#
# Cumulants of independent sums add up. The first four give mean, variance, skewness and
# excess kurtosis. The skewness is negative: the lower tail is the longer one.

# %%
for n in (16, 64, 256):
    mean, variance, third, fourth = exact.cumulants(square(n), order=4)
    skewness, excess = third / variance**1.5, fourth / variance**2
    print(f"n = {n:3}: skewness {skewness:.4f}, excess kurtosis {excess:.4f}")

# %% [markdown]
# ## Moments, as fractions
#
# $E\|Mu\|^{2k}$ is known for any symmetric weights, of any fourth moment. It is a
# rational number where the moments of weights and masks are.

# %%
shape = (4, 4, 4, 4)
for law_of_weights in (weights.normal(), weights.uniform(), weights.rademacher()):
    small = ensembles.Ensemble(shape, law_of_weights, masks.relu())
    values = [moments.norm_moment(small, k) for k in (1, 2, 3)]
    print(f"{law_of_weights.name:10}", *values)

# %% [markdown]
# The first moment is 1: that is how the scale of the weights was chosen. For normal
# weights and $k=2$ there is a closed form, $\prod_i(1+5/n_i)$.

# %%
normal_shape = ensembles.Ensemble(shape, weights.normal(), masks.relu())
print(moments.norm_moment(normal_shape, 2), (1 + Fraction(5, 4)) ** 3)

# %% [markdown]
# High moments are carried by rare networks, so simulation soon sees nothing of them. At
# $\beta=1$ and $k=2$ the exact value is of the order of $e^{5}$, and the typical
# network is far below 1.

# %%
fourth = float(moments.norm_moment(square(64), 2))
print(f"E‖Mu‖⁴ = {fourth:.1f}, exp(5) = {np.exp(5):.1f}")
print(f"the median of ‖Mu‖⁴ is {np.exp(2 * law.quantile(0.5)):.5f}")

# %% [markdown]
# ## Volumes
#
# By how much does a network change areas and volumes? For $k$ orthonormal vectors $V$
# the squared volume of their image is $\det((MV)^\top MV)$. Its log has an exact law,
# too. `spectra.path` samples it, as the QR decomposition of $MV$ layer by layer.

# %%
volume_law = exact.volume_law(square(32), 2)
path = spectra.path(square(32), 2)
sampled = sampling.sample(path, jax.random.key(0), 4_000).sum((1, 2))
mean = summaries.estimate(sampled).mean
print(f"exact mean {volume_law.mean:.3f}, variance {volume_law.variance:.3f}")
print(f"sampled mean {mean.value:.3f} ± {mean.error:.3f}")
laws.compare(sampled, volume_law).verdict

# %% [markdown]
# ## Lyapunov exponents
#
# They say how fast the largest, second largest, … direction grows or shrinks in a
# layer. Areas of $k$ vectors change by the sum of the first $k$. With masks they are
# those of networks in which $k$ directions survive, so ask for no more of them than you
# need.

# %%
exponents = spectra.lyapunov(square(32), 2)
print(spectra.lyapunov(square(32), 6).round(4))
print(f"2 · 32 layers · (first + second) = {2 * 32 * exponents.sum():.3f}")

# %% [markdown]
# The last line is the mean of the volume law above. (Twice, as the law is of the
# squared volume.)
#
# ## How many directions are left
#
# The participation ratio $n\,E\operatorname{tr}G^2/E(\operatorname{tr}G)^2$ with
# $G=M^\top M$ is 1 where all directions are stretched alike, and $n$ where one
# direction has all. It is exact as well. For wide layers it tends to $1+d/p$, which is
# $1+2d$ for ReLUs.

# %%
depths = np.array([1, 2, 4, 8, 16, 32, 64, 128])
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
for n in (8, 32, 128):
    shapes = [(n,) * (d + 1) for d in depths]
    nets = [ensembles.Ensemble(s, weights.normal(), masks.relu()) for s in shapes]
    values = [float(spectra.participation(net)) for net in nets]
    panel.loglog(depths, values, marker="o", markersize=4, label=f"width {n}")
panel.loglog(depths, 1 + 2 * depths, color="0.6", linestyle=":", label="wide, 1 + 2d")
panel.set(xlabel="depth d (layers)", ylabel="participation ratio")
panel.legend()
plt.show()

# %% [markdown]
# Each curve leaves the wide limit where depth is comparable with width, and ends at its
# width: one direction is left.
#
# ## The tangent kernel
#
# The tangent kernel $K=\sum(\partial f/\partial w)^2$ over all weights varies over
# initialisations. $E K^2/(E K)^2$ is known at any widths. It is of the order of
# $e^{5\beta}$, but smaller.

# %%
for depth in (4, 8, 16, 32):
    ratio = kernels.second_moment((32,) * depth + (1,))
    beta = (depth - 1) / 32
    print(f"β = {beta:.3f}: {ratio:.3f}, exp(5β) = {np.exp(5 * beta):.3f}")

# %% [markdown]
# ## What next
#
# * [The martingale](martingale.md): weights that are not normal.
# * [First steps of training](first_steps.md): what the law has to do with gradients.
# * [Theory](../theory/index.md): derivations and sources.
