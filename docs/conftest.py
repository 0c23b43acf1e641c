"""Pages whose examples need what the tests' environment may lack."""

import importlib.util

import pytest

# torch's own warnings, of the forward derivatives that it traces
TORCH = ("ignore::DeprecationWarning", "ignore::UserWarning:torch")

collect_ignore = ["how/torch.md"] if importlib.util.find_spec("torch") is None else []


def pytest_collection_modifyitems(items):
    """Let torch warn."""
    for item in items:
        if item.path.name == "torch.md":
            for warning in TORCH:
                item.add_marker(pytest.mark.filterwarnings(warning))
