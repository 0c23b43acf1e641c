# %% [markdown]
# # Transformers of any size
#
# How stable are gradients in a transformer? To draw its weights for each sample is
# slow: GPT-2 has some hundred million. It is also needless. At initialisation a network
# meets its weights only through products with a few vectors, and given those vectors
# the products have a known law. So this library samples the products, and never the
# weights. A sample costs a few random numbers a unit in place of one a weight. The
# result is exact in law, for normal and orthogonal weights.

# %%
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from lognorm_jax import laws, networks, paths, probes, sampling, summaries

# %% [markdown]
# ## A transformer
#
# `networks.transformer` makes one that acts on embedded tokens. Defaults are those of
# GPT-2: normalisation before each branch, causal attention, GELU, weights of standard
# deviation 0.02, and residual projections smaller by $1/\sqrt{2\cdot\text{depth}}$.
# Each block is two layers: attention, then a fully connected branch. Here is GPT-2's
# small shape, with eight tokens.

# %%
gpt2 = networks.transformer(768, 12, heads=12, tokens=8)
print(gpt2.shape, gpt2.matrices[:4], "…")

# %% [markdown]
# `paths.gram` follows a tangent through a network, in law. The log-norm says by how
# much the network changes its squared norm. The embedded tokens and the tangent are
# random here. Take your own if you have them.


# %%
def timed(network, num_samples=32):
    x, tangent = np.random.default_rng(0).normal(size=(2, *network.shape))
    path = paths.gram(network, x, tangent)
    sampling.sample(path, jax.random.key(0), 8, block_size=8)  # to compile it
    start = time.perf_counter()
    trace = sampling.sample(path, jax.random.key(1), num_samples, block_size=8)
    return trace, (time.perf_counter() - start) / num_samples


trace, seconds = timed(gpt2)
mean, variance, _ = summaries.estimate(trace.log_norm)
print(f"mean {mean.value:.4f} ± {mean.error:.4f}")
print(f"variance {variance.value:.1e} ± {variance.error:.1e}")

# %% [markdown]
# Few samples do, since the log-norm hardly varies over initialisations. GPT-2 keeps
# tangents very nearly as they are.
#
# ## How the cost grows
#
# The cost of a sample in law grows with the width times the number of vectors. The
# number of weights grows with the square of the width, and so does the cost of drawing
# them. Compare with a network a quarter as wide. (Times vary from run to run.)

# %%
_, small_seconds = timed(networks.transformer(192, 12, heads=12, tokens=8))
print(f"width 192: {1e3 * small_seconds:.1f} ms a sample")
print(f"width 768: {1e3 * seconds:.1f} ms a sample")
print(f"4 × the width, 16 × the weights, {seconds / small_seconds:.1f} × the time")

# %% [markdown]
# ## Gradients
#
# `paths.gradients` gives $\ln\|\partial L/\partial W\|^2$ of each matrix. You give the
# derivative of the loss by the output, or the loss itself as a function of the output.

# %%
x, slope = np.random.default_rng(1).normal(size=(2, 8, 768))
path = paths.gradients(gpt2, x, slope)
logs = sampling.sample(path, jax.random.key(2), 16, block_size=8)
mean = summaries.estimate(logs).mean

# %%
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
for kind in ("qkv", "out", "up", "down"):
    places = [i for i, name in enumerate(gpt2.matrices) if name.endswith("." + kind)]
    value, error = mean.value[places], 2 * mean.error[places]
    panel.errorbar(np.arange(1, 13), value, error, capsize=2, label=kind)
panel.set(xlabel="block", ylabel=r"mean of $\ln\|\partial L/\partial W\|^2$")
panel.legend(title="matrix (± 2 s.e.)", loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# From the last block to the first, gradients neither vanish nor explode. The four kinds
# of matrices differ among themselves, as their scales do.
#
# ## Your own architecture
#
# A layer is a function of its linear maps and of $x$. Declare the maps with
# `networks.linear`, and call them by name. In between you may do what JAX can do.


# %%
def mixer(maps, x):  # x: (tokens, width)
    x = x + maps["tokens"](jnp.tanh(x).T).T
    return x + maps["out"](jax.nn.gelu(maps["in"](x)))


maps = {
    "tokens": networks.linear(8, 8),
    "in": networks.linear(32, 128),
    "out": networks.linear(128, 32, std=0.05),
}
mixers = networks.network((8, 32), [networks.layer(mixer, maps)] * 6, "mixer")
mixers.matrices[:4]

# %% [markdown]
# Layers that are alike should be one object, as here: then they compile once.
#
# `probes.probe` gives the report on a network, in law. Each sample takes one of the
# inputs and a random tangent.

# %%
inputs = np.random.default_rng(2).normal(size=(4, 8, 32))
in_law = probes.probe(mixers, inputs, jax.random.key(3), num_samples=1_000)
print(in_law)

# %% [markdown]
# These layers make tangents larger, and the report says by how much each. Smaller
# branches, such as a smaller `std` of the maps that end them, keep the norm nearer to
# what it was.
#
# ## Is it the same as with weights?
#
# Small networks can be drawn. `network.init` draws the weights, and `network.layers`
# makes a list of functions of them, which the probe takes as any other model.


# %%
def drawn_layers(key):
    return mixers.layers(mixers.init(key))


drawn = probes.probe(drawn_layers, inputs, jax.random.key(4), num_samples=1_000)
print(f"in law {in_law.mean.value:.3f} ± {in_law.mean.error:.3f}")
print(f"drawn  {drawn.mean.value:.3f} ± {drawn.mean.error:.3f}")
laws.compare(in_law.log_norms, drawn.law, resolution=0.1).verdict

# %%
figure, panel = plt.subplots(figsize=(8, 3.2), layout="constrained")
for name, found in {"in law": in_law, "drawn": drawn}.items():
    panel.ecdf(found.log_norms, label=name)
panel.set(xlabel="log-norm of the tangent, six layers", ylabel="share of samples below")
panel.legend()
plt.show()

# %% [markdown]
# ## What next
#
# * [First steps of training](first_steps.md): what happens to gradients then.
# * [Probe and audit your model](probe_and_audit.md): models of Flax and PyTorch.
# * [Theory](../theory/index.md): how matrices are met without being drawn.
