# %% [markdown]
# # Why do deep networks lose their gradients?
#
# *A lesson of twenty minutes. It needs linear algebra and some probability, and no
# knowledge of deep learning. All code runs on a free notebook service in less than a
# minute.*
#
# A network is a chain of layers. Training sends a signal through the chain, and each
# layer multiplies it by a random matrix. If the signal gets lost on the way, there is
# nothing to learn from. So here is the question of this lesson: **what does a product
# of many random matrices do to the length of a vector?**

# %%
# Once, in a fresh notebook, install the library from a clone of its repository:
# # %pip install -q PATH_OR_ADDRESS_OF_THE_REPOSITORY
import matplotlib.pyplot as plt
import numpy as np

import lognorm_jax
from lognorm_jax import advice, ensembles, exact, laws, masks, summaries, weights

print("lognorm_jax", lognorm_jax.__version__)

# %% [markdown]
# ## A deep network in six lines
#
# A layer takes a vector $x$ of $n$ numbers, multiplies it by an $n\times n$ matrix $W$
# of independent normal numbers, and sets what is negative to 0. (That function is
# called ReLU.) The weights have variance $2/n$. You will soon see why. The vector
# starts with length 1.


# %%
def squared_norms(n, depth, rng):
    x, norms = np.ones(n) / np.sqrt(n), []
    for _ in range(depth):
        W = rng.normal(size=(n, n)) * np.sqrt(2 / n)
        x = np.maximum(W @ x, 0)
        norms.append(x @ x)
    return norms


# %% [markdown]
# The function returns $\|x\|^2$ after each layer. Draw 4,000 networks of 20 layers of
# width 20.

# %%
n, depth = 20, 20
rng = np.random.default_rng(0)
norms = np.array([squared_norms(n, depth, rng) for _ in range(4_000)])
norms.shape

# %% [markdown]
# ## The mean says all is well
#
# What is the mean of the squared norm? It was 1 at the start.

# %%
for layer in (1, 5, 10, 20):
    mean = summaries.estimate(norms[:, layer - 1]).mean
    median = np.median(norms[:, layer - 1])
    print(f"layer {layer:2}: mean {mean.value:.2f} ± {mean.error:.2f}", end=", ")
    print(f"median {median:.3f}")

# %% [markdown]
# The numbers after ± are standard errors. The mean stays at 1, as far as we can tell.
# But the median falls: the *typical* network loses its signal. Both are true at once,
# since a few networks have a very large norm.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
last = norms[:, -1]
left.hist(last, bins=np.linspace(0, 3, 61), color="0.7")
left.axvline(1, color="C1", label="true mean")
left.axvline(np.median(last), color="C0", label="median")
left.set(xlabel=r"squared norm $\|x\|^2$ after 20 layers", ylabel="networks")
layers = np.arange(1, depth + 1)
right.plot(layers, norms.mean(0), "C1", label="mean")
right.plot(layers, np.median(norms, 0), "C0", label="median")
right.set(xlabel="layer", ylabel=r"squared norm $\|x\|^2$", ylim=(0, None))
left.legend()
right.legend()
plt.show()

# %% [markdown]
# The histogram is cut at 3. How many networks are further right, and how far do they
# go?

# %%
f"{np.mean(last > 3):.1%} are above 3, and the largest is {last.max():.0f}"

# %% [markdown]
# ## Take the log
#
# A law that is squeezed at 0 and has a long tail looks like the law of a *product*. The
# log turns products into sums. So look at $\ln\|x\|^2$.

# %%
logs = np.log(last)
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
grid = np.linspace(-14, 6, 300)
bell = laws.normal(logs.mean(), logs.var())
panel.hist(logs, bins=60, density=True, color="0.8", label="4,000 networks")
panel.plot(grid, bell.pdf(grid), label="normal law, same mean and variance")
panel.set(xlabel=r"log-norm $\ln\|x\|^2$ after 20 layers", ylabel="density")
panel.legend()
plt.show()

# %% [markdown]
# It is nearly a bell curve. (The lower tail is a little longer. We come back to that.)
#
# ## A sum over layers
#
# Why? Let $R_i$ be the squared norm after layer $i$ over that before it. Then
#
# $$\ln\|x_d\|^2=\ln R_1+\ln R_2+\dots+\ln R_d ,$$
#
# and sums of many small random terms tend to be normal. So look at one term. Let $x$ be
# what reaches the layer. Each coordinate of $Wx$ is normal with variance $2\|x\|^2/n$,
# so
#
# $$R=\frac2n\sum_{a=1}^{n}D_a z_a^2 ,$$
#
# with independent standard normal $z_a$, and $D_a=1$ if $z_a>0$, else 0. As $z_a^2$
# does not depend on the sign of $z_a$, you may think of $D_a$ as a coin. Now compute.
#
# * $E\,D z^2=\tfrac12$, so $E R=\tfrac2n\cdot n\cdot\tfrac12=1$. That is why the
#   variance of the weights was $2/n$.
# * $E\,D z^4=\tfrac32$, so $\operatorname{Var}(Dz^2)=\tfrac32-\tfrac14=\tfrac54$, and
#   $\operatorname{Var}R=\tfrac4{n^2}\cdot n\cdot\tfrac54=\tfrac5n$.
#
# None of this depends on $x$. Check it, over all networks and layers:

# %%
before = np.concatenate([np.ones((len(norms), 1)), norms[:, :-1]], axis=1)
found = summaries.estimate((norms / before).ravel())
print(f"mean of R     {found.mean.value:.4f} ± {found.mean.error:.4f}")
print(f"variance of R {found.variance.value:.4f} ± {found.variance.error:.4f}")
print(f"5/n           {5 / n:.4f}")

# %% [markdown]
# ## The martingale
#
# $E[R_i\mid\text{the past}]=1$ means that $\|x_i\|^2$ is a fair game, a **martingale**:
# whatever you have, you expect to keep it. But its *log* is not fair. With
# $\ln(1+\varepsilon)\approx\varepsilon-\varepsilon^2/2$,
#
# $$E\ln R\approx-\tfrac12\operatorname{Var}R=-\frac{5}{2n},\qquad
# \operatorname{Var}\ln R\approx\operatorname{Var}R=\frac5n .$$
#
# Each layer pulls the log-norm down by $5/(2n)$: that is the **drift**. What is left
# when it is taken off is fair again, a sum of small surprises. Their variances add up.
# The figure shows the paths of 30 networks with their drift taken off, and two standard
# deviations of such a sum.

# %%
increments = np.log(norms / before)
surprises = increments - increments.mean(0)
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
fan = 2 * np.sqrt(np.cumsum(surprises.var(0)))
panel.fill_between(layers, -fan, fan, color="0.9", label="± 2 standard deviations")
panel.plot(layers, surprises[:30].cumsum(1).T, linewidth=0.7)
panel.set(xlabel="layer", ylabel="log-norm less drift", xticks=range(0, 21, 5))
panel.legend(loc="upper left")
plt.show()

# %% [markdown]
# ## One number
#
# Add up the layers. If they have widths $n_1,\dots,n_d$, all depends on one number:
#
# $$\beta=\frac1{n_1}+\dots+\frac1{n_d},\qquad
# \ln\|x_d\|^2\approx N\!\left(-\tfrac52\beta,\;5\beta\right).$$
#
# That is the theorem of Hanin and Nica (2020). For $d$ layers of width $n$ it is
# $\beta=d/n$: depth over width. Our networks have $\beta=1$. In the library:

# %%
ensemble = ensembles.Ensemble((n,) * (depth + 1), weights.normal(), masks.relu())
limit = ensembles.limit_law(ensemble)
print(f"β = {ensembles.beta(ensemble):.2f}, limit law {limit.name}")

# %% [markdown]
# What about gradients? They run the same way back: through the same masks and the
# transposed matrices. So the law of their norm is the same. The gradients of a typical
# network of $\beta=1$ have lost the factor $e^{-5/2}$ in the squared norm, and one
# standard deviation is a further factor of $e^{\sqrt5}$, up or down.
#
# ## How good is the limit?
#
# The theorem is about wide layers, and 20 is not very wide. The library also has the
# exact law at any width.

# %%
law = exact.law(ensemble)
found = summaries.estimate(logs)
mean, variance = found.mean, found.variance
print(f"4,000 networks: mean {mean.value:.2f} ± {mean.error:.2f}", end=", ")
print(f"variance {variance.value:.2f} ± {variance.error:.2f}")
print(f"limit law:      mean {limit.mean:.2f}, variance {limit.variance:.2f}")
print(f"exact law:      mean {law.mean:.2f}, variance {law.variance:.2f}")

# %%
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
panel.hist(logs, bins=60, density=True, color="0.8", label="4,000 networks")
panel.plot(grid, limit.pdf(grid), "--", label="limit law")
panel.plot(grid, law.pdf(grid), label="exact law")
panel.set(xlabel=r"log-norm $\ln\|x\|^2$ after 20 layers", ylabel="density")
panel.legend()
plt.show()

# %% [markdown]
# The exact law has the longer lower tail, as the networks have. `laws.compare` tests
# whether samples follow a law:

# %%
print("exact law:", laws.compare(logs, law).verdict)
print("limit law:", laws.compare(logs, limit).verdict)

# %% [markdown]
# ## Exercises
#
# 1. **Without ReLUs.** Leave out `np.maximum`, and let the weights have variance $1/n$.
#    What is $\operatorname{Var}R$ now? What takes the place of $5\beta$?
# 2. **Depth against width.** Which network is the more stable: 20 layers of width 20,
#    or 80 layers of width 80? How wide must a network of 100 layers be, so that at most
#    one network in twenty changes the norm of the signal by more than a factor of 10?
# 3. **The rare ones.** The mean of $\|x\|^2$ is 1. By the limit law, what share of the
#    networks has $\|x\|^2\ge1$ at $\beta=1$, and at $\beta=4$? How can the mean still
#    be 1?
#
# Try them before you read on.
#
# ## Answers
#
# ### Answer 1
#
# $R=\tfrac1n\sum z_a^2$, so $\operatorname{Var}R=\tfrac1n(E z^4-1)=\tfrac2n$. The limit
# law is $N(-\beta,2\beta)$. In the library a layer that counts in $\beta$ but masks
# nothing is `masks.bernoulli(1)`.

# %%
linear = ensembles.Ensemble((n,) * (depth + 1), weights.normal(), masks.bernoulli(1))
ensembles.limit_law(linear).name

# %% [markdown]
# ### Answer 2
#
# Both have $\beta=1$, so they are about equally stable. For the width: a factor of 10
# of the norm is $2\ln10$ in the log-norm. Search for the smallest width with the exact
# law, or ask the library.

# %%
width = advice.narrowest(100).value
for n_units in (width - 1, width):
    found_law, _ = advice.law(n_units, 100)
    print(f"width {n_units}: {advice.outside(found_law):.4f}")

# %% [markdown]
# ### Answer 3
#
# The share is $P(N(-\tfrac52\beta,5\beta)\ge0)=1-\Phi(\tfrac12\sqrt{5\beta})$. It falls
# with $\beta$. The mean is 1 because those few networks have very large norms: if $Y$
# is $N(-v/2,v)$, then $E e^{Y}=1$, whatever $v$ is.

# %%
for beta in (1, 4):
    share = float(laws.normal(-5 * beta / 2, 5 * beta).sf(0))
    print(f"β = {beta}: {share:.1%}")

# %% [markdown]
# ## What next
#
# * [The law of a network in ten minutes](law.md): the library from its start.
# * [The martingale](martingale.md): the same idea, for weights that are not normal.
# * [How deep may it be?](how_deep.md): what to do about it.
