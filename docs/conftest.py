"""Pages whose examples need what the tests' environment may lack."""

import importlib.util

collect_ignore = ["how/torch.md"] if importlib.util.find_spec("torch") is None else []
