"""The tangent kernel and its change in the first step, of networks whose matrices are
not drawn: each meets its input, the cotangent behind it, and how its input moves.
"""

import jax
import jax.numpy as jnp
import numpy as np


def path_of(width: int, depth: int, x: np.ndarray):
    """Return key -> (−ΔK/η of a step along f ∇f, K), of the ReLU network of ``depth``
    matrices of equal widths, and one output, in units of the weights' deviations.

    With v = ∇f, K = ‖v‖² changes by 2 f″ in the direction v, where f″ is the second
    derivative of f along v: a third pass through the network, with the first two
    derivatives of what reaches each layer.
    """
    n = width
    hidden, head = (2 / n) ** 0.5, n**-0.5

    def normal(key, place):
        return jax.random.normal(jax.random.fold_in(key, place), (n,))

    def ahead(x, key):
        z = hidden * jnp.linalg.norm(x) * normal(key, 0)
        return jax.nn.relu(z), (x, z, key)

    def back(delta, met):
        # Wᵀ δ, given W x = z
        x, z, key = met
        delta = jnp.where(z > 0, delta, 0)
        unit = x / jnp.linalg.norm(x)
        rest = hidden * jnp.linalg.norm(delta) * normal(key, 1)
        known = jnp.vdot(z, delta) / jnp.linalg.norm(x)
        before = rest + (known - unit @ rest) * unit
        return before, (x, z, delta, before, key)

    def again(moves, met):
        # W x′ and W x″, given both; W itself moves by s² δ xᵀ
        first, second = moves
        x, z, delta, before, key = met
        unit, size = x / jnp.linalg.norm(x), jnp.linalg.norm(delta)
        p, pulled = delta / size, before / size

        def image(v, others, place):
            # of what is left of v beside x and the others
            along = (unit @ v) / jnp.linalg.norm(x)
            left = v - (unit @ v) * unit
            answer = along * z
            for q, of_q in others:
                answer = answer + (q @ left) * of_q
                left = left - (q @ left) * q
            length = jnp.linalg.norm(left)
            q = left / jnp.where(length > 0, length, 1)
            g = hidden * normal(key, place)
            of_q = g + ((pulled @ q) - p @ g) * p
            return answer + length * of_q, (q, of_q)

        moved, found = image(first, [], 2)
        twice, _ = image(second, [found], 3)
        rate = hidden**2
        one = moved + rate * delta * jnp.vdot(x, x)
        two = twice + 2 * rate * delta * jnp.vdot(x, first)
        on = z > 0
        kernel = rate * jnp.vdot(delta, delta) * jnp.vdot(x, x)
        return (jnp.where(on, one, 0), jnp.where(on, two, 0)), kernel

    def path(key):
        keys = jax.random.split(key, depth)
        last, met = jax.lax.scan(ahead, jnp.asarray(x, jnp.float32), keys[1:])
        w = head * normal(keys[0], 0)
        f = w @ last
        _, met = jax.lax.scan(back, w, met, reverse=True)
        zero = jnp.zeros(n)
        (one, two), parts = jax.lax.scan(again, (zero, zero), met)
        rate = head**2
        second = w @ two + 2 * rate * jnp.vdot(last, one)
        return 2 * f * second, jnp.sum(parts) + rate * jnp.vdot(last, last)

    return path
