# %% [markdown]
# # Probe and audit your model
#
# You have a model, and two questions. Is its initialisation what you think it is? And
# do gradients survive it? An **audit** answers the first, a **probe** the second. Both
# make fresh initialisations of your own code, and change nothing of it.
#
# The model here is of Flax NNX. Equinox modules, Flax Linen and plain functions work
# likewise.

# %%
import functools

import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from lognorm_jax import audits, models, probes, testing

# %% [markdown]
# ## A model with a mistake
#
# Eight ReLU layers and a linear head. The author meant He's initialisation, but left
# out `kernel_init`, so the layers take Flax's default.


# %%
class Classifier(nnx.Module):
    def __init__(self, rngs, **options):
        linear = functools.partial(nnx.Linear, rngs=rngs, **options)
        self.body = nnx.List(linear(64, 64) for _ in range(8))
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        for layer in self.body:
            x = nnx.relu(layer(x))
        return self.head(x)


def make_model(key):
    return Classifier(nnx.Rngs(key))


# %% [markdown]
# ## Name its blocks
#
# The probe follows a model block by block. Name the blocks in order, with the functions
# that `__call__` puts between them. A tuple counts as one block. `models.same` checks
# that the blocks, applied in turn, are the model. It raises an error if they are not.

# %%
names = [(f"body[{i}]", nnx.relu) for i in range(8)] + ["head"]
inputs = np.random.default_rng(0).normal(size=(16, 64)).astype("float32")
model = make_model(jax.random.key(0))
models.same(models.blocks(model, names), model, inputs[0])

# %% [markdown]
# The inputs are 16 single inputs, without a batch axis. Take examples of your data
# here.
#
# ## Probe
#
# The probe draws a model for each key, picks an input and a random direction, and
# records by how much each block changes the direction: $\ln R_i$, the log of the
# squared norm after the block over that before it.


# %%
def blocks_of(key):
    return models.blocks(make_model(key), names)


report = probes.probe(blocks_of, inputs, jax.random.key(1), num_samples=500)
print(report)

# %% [markdown]
# Read it from the bottom.
#
# * The last line is the **verdict**. A model is *stable* if at most 5% of its
#   initialisations change the root mean square of a coordinate by more than a factor
#   of 10. The brackets are 95% intervals, since the shares are counted from samples.
# * The line above says how much initialisations differ from one another: as much as
#   those of a plain ReLU network of that β.
# * The table has mean and variance of $\ln R_i$, each with its standard error. In a
#   healthy ReLU layer of width $n$ the mean is about $-5/(2n)$, a small number. Here
#   each ReLU layer loses about half of the squared norm.

# %%
each = report.layers.mean
print(f"first block: R = {np.exp(each.value[0]):.2f} in the typical network")
print(f"-5/(2n) for n = 64: {-5 / (2 * 64):.3f}")

# %% [markdown]
# `kind="vjp"` of `probes.probe` follows gradients backwards instead, and
# `kind="activations"` the activations.
#
# ## Audit
#
# So the model shrinks gradients. Why? Write down what its parameters should be, and let
# the audit compare. A declaration maps patterns of names to laws. He's law is a
# standard deviation of $\sqrt2/\sqrt{\text{fan-in}}$.

# %%
declared = {
    "*bias": "constant:0",
    "head.kernel": "fan_in:1:truncated_normal",
    "*kernel": "fan_in:1.4142:truncated_normal",
}
found = audits.audit(make_model, declaration=declared)
print(found)

# %% [markdown]
# The audit names the parameters, what they are, what you declared, and the likely
# cause. It is right here: Flax's default has variance $1/\text{fan-in}$, and He's has
# twice as much. The level of all findings together is $10^{-6}$, so there are no false
# alarms to get used to.
#
# ## The correction


# %%
def make_corrected(key):
    return Classifier(nnx.Rngs(key), kernel_init=nnx.initializers.he_normal())


corrected = audits.audit(
    make_corrected,
    inputs,
    blocks=names,
    declaration=declared,
    num_samples=500,
    kinds=("jvp",),
)
print("\n".join(corrected.verdict_lines()))

# %% [markdown]
# With inputs and blocks the audit probes, too, and has one report for each of the
# `kinds`. The figure shows both models: on the left the mean log-norm after each block,
# with a band of one standard deviation over initialisations, and on the right the
# log-norms of the whole.

# %%
reports = {"Flax's default": report, "He's": corrected.reports["jvp"]}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for name, one in reports.items():
    blocks, mean = np.arange(1, 10), np.cumsum(one.layers.mean.value)
    spread = np.sqrt(np.cumsum(one.layers.variance.value))
    left.plot(blocks, mean, marker="o", markersize=3, label=name)
    left.fill_between(blocks, mean - spread, mean + spread, alpha=0.2)
    right.hist(one.log_norms, bins=40, alpha=0.6, label=name)
left.set(xlabel="block", ylabel="log-norm of the tangent")
right.set(xlabel="log-norm of the tangent, all blocks", ylabel="initialisations")
left.legend(loc="lower left")
plt.show()

# %% [markdown]
# The head takes 64 numbers to 10, so it lowers the norm of a tangent even where it
# keeps the size of a coordinate. The verdict goes by the root mean square of a
# coordinate, and does not count that.
#
# ## In a test suite
#
# `testing.assert_initialised` turns the audit into an assertion, and
# `testing.assert_stable` the probe. In a file of your tests:


# %%
def test_initialisation(make=make_corrected):
    testing.assert_initialised(make, declared)


def test_gradients(make=make_corrected):
    testing.assert_stable(make, inputs, blocks=names, kinds=["vjp"])


test_initialisation()
test_gradients()

# %% [markdown]
# `kinds=["vjp"]` is for gradients alone; without it tangents are tested as well. Both
# tests pass in silence. With the mistake, the first fails and says why:

# %%
try:
    test_initialisation(make_model)
except AssertionError as error:
    print(error)

# %% [markdown]
# If your model takes a framework's defaults on purpose, say so by name: the declaration
# is then `"flax"`, `"equinox"` or `"pytorch"`.

# %%
testing.assert_initialised(make_model, "flax").findings

# %% [markdown]
# ## Models of PyTorch
#
# They go through `audits.audit_torch`, which takes a function that makes the module,
# and in tests through the same assertions with `torch=True`. On the command line a
# PyTorch model is `lognorm audit torch:MODULE:FUNCTION`, and a model type of the
# transformers library `lognorm audit hf:TYPE`. See [PyTorch](../how/torch.md).
#
# ## What next
#
# * [How deep may it be?](how_deep.md): gains, depths and widths that are stable.
# * [PyTorch](../how/torch.md): the same audit for modules of PyTorch.
# * [The law of a network in ten minutes](law.md): what β and $\ln R$ mean.
