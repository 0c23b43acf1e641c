"""Run the suite in float32, or with --x64; with four simulated CPU devices and strict
promotion.

Most of the suite's time is compilation, of code that then runs for milliseconds. So XLA
is asked to optimise less, and hardly at all in exact, oracle and invariance tests,
unless XLA_FLAGS is set (XLA_FLAGS= runs the suite fully optimised).
"""

import os

OPTIMISED = "XLA_FLAGS" in os.environ
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)

import jax
import pytest
from hypothesis import settings


def pytest_addoption(parser):
    parser.addoption(
        "--x64", action="store_true", help="run in float64 (jax_enable_x64)"
    )


settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


def pytest_configure(config):
    jax.config.update("jax_enable_x64", config.getoption("--x64"))
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(config, items):
    """With --x64, leave out what does not depend on the precision of JAX.

    Of the statistical tests only those of the samplers are kept, whose draws are others
    in float64: what is done with the draws is held by exact and oracle tests.
    """
    if config.getoption("--x64"):
        items[:] = [item for item in items if runs_in_float64(item)]


def pytest_runtest_setup(item):
    """Hardly optimise what is not run on many samples."""
    few = item.name.startswith(("test_exact", "test_oracle", "test_invariance"))
    jax.config.update("jax_disable_most_optimizations", few and not OPTIMISED)


def runs_in_float64(item):
    if item.get_closest_marker("float64"):
        return True
    marked = item.get_closest_marker("float32")
    return not (marked or "test_statistical" in item.name or item.path.suffix == ".md")


@pytest.fixture
def key():
    return jax.random.key(20190327)


@pytest.fixture
def rounding():
    """Relative accuracy to ask of a few dozen floating-point operations."""
    return 1e-12 if jax.config.jax_enable_x64 else 2e-5


@pytest.fixture
def programs():
    """Return the list of programs compiled since, one entry each."""
    found = []

    def listen(event, duration, **_):
        del duration
        if event.endswith("backend_compile_duration"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)
