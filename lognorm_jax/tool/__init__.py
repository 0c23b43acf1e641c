"""Answers for engineers: advice, figures, and the command line."""

from lognorm_jax.tool import advice, plots, spoken

__all__ = ["advice", "plots", "spoken"]
