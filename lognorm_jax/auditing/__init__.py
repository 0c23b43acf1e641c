"""Is an initialisation what it is declared to be, and is it stable?"""

from lognorm_jax.auditing import audits, declarations, ready, testing

__all__ = ["audits", "declarations", "ready", "testing"]
