"""Ready declarations, of frameworks' defaults and of model families; and how a model of
the transformers library is made without weights.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from lognorm_jax._tools import checks
from lognorm_jax.auditing import _torch, declarations
from lognorm_jax.auditing.declarations import Declaration

TOKENS = 32  # of an input
IMAGES = 4  # of an input, which batch normalisation needs several of
_ROOT = 3**-0.5  # sd of a uniform number on [−1, 1]

_PYTORCH: Declaration = {
    "*norm*.weight": declarations.constant(1.0),
    "*norm*.bias": declarations.constant(0.0),
    "*embed*.weight": declarations.normal(1.0),
    # attention, of nn.MultiheadAttention
    "*in_proj_weight": declarations.fan_average(1.0, "uniform"),
    "*in_proj_bias": declarations.constant(0.0),
    "*attn.out_proj.bias": declarations.constant(0.0),
    "*weight": declarations.fan_in(_ROOT, "uniform"),
    "*bias": declarations.fan_in(_ROOT, "uniform"),
}
_FLAX: Declaration = {
    "*scale": declarations.constant(1.0),
    "*bias": declarations.constant(0.0),
    "*kernel": declarations.fan_in(1.0, "truncated normal"),
}
_EQUINOX: Declaration = {
    "*norm*.weight": declarations.constant(1.0),
    "*norm*.bias": declarations.constant(0.0),
    "*embed*.weight": declarations.normal(1.0),
    "*weight": declarations.fan_in(_ROOT, "uniform"),
    "*bias": declarations.fan_in(_ROOT, "uniform"),
}


def _gpt2(config: Any) -> Declaration:
    """Return that of GPT-2 (Radford et al. 2019): residual layers over √(2·blocks)."""
    base = declarations.normal(config.initializer_range)
    return {
        "*ln_*.weight": declarations.constant(1.0),
        "*bias": declarations.constant(0.0),
        "*.c_proj.weight": declarations.residual(base, config.n_layer),
        "*": base,
    }


def _all_normal(config: Any) -> Declaration:
    """Return that of models whose matrices have one sd."""
    return {
        "*norm*.weight": declarations.constant(1.0),
        "*Norm*.weight": declarations.constant(1.0),
        "*bias": declarations.constant(0.0),
        "*": declarations.normal(config.initializer_range),
    }


def _resnet(config: Any) -> Declaration:
    """Return that of residual networks of images: He's by fan-out."""
    del config
    return {
        "*normalization.weight": declarations.constant(1.0),
        "*normalization.bias": declarations.constant(0.0),
        "*convolution.weight": declarations.fan_out(2**0.5),
    }


_OF_CONFIG: Mapping[str, Callable[[Any], Declaration]] = {
    "gpt2": _gpt2,
    "bert": _all_normal,
    "llama": _all_normal,
    "resnet": _resnet,
    "vit": _all_normal,
}
READY: Mapping[str, Declaration] = {
    "equinox": _EQUINOX,
    "flax": _FLAX,
    "pytorch": _PYTORCH,
}


def ready(name: str) -> Declaration:
    """Return the declaration of a framework's defaults, by name.

    Raises:
        ValueError: for other names.
    """
    return READY[checks.one_of("declaration", name, READY)]


def require_torch() -> None:
    """Raise ``ValueError`` without PyTorch, saying how to install it."""
    _torch.torch()


def of_hub(
    kind: str, settings: Mapping[str, Any]
) -> tuple[Callable[[], Any], Any, Declaration]:
    """Return how to make a model of transformers by its type, an input, and what is
    declared of it; nothing is downloaded.

    Args:
        kind: a model type, such as "gpt2".
        settings: of its configuration, where they are not the default.

    Raises:
        ValueError: without the library, and for types and settings it does not know.
    """
    library = _torch.torch()
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ValueError(
            f'Model types need transformers: pip install "lognorm_jax[torch]" ({error})'
        ) from error
    known = sorted(transformers.CONFIG_MAPPING)
    checks.one_of_many("model type", kind, known)
    usual = transformers.AutoConfig.for_model(kind)
    for name in settings:
        if not hasattr(usual, name):
            checks.one_of_many("setting", name, usual.to_dict())
    try:
        config = transformers.AutoConfig.for_model(kind, **settings)
    except Exception as error:
        # of any kind: it is the library that refused them
        raise ValueError(f"settings = {dict(settings)}: {error}") from error

    def make() -> Any:
        return transformers.AutoModel.from_config(config)

    make.__name__ = kind
    declared = _OF_CONFIG.get(kind)
    declaration = {} if declared is None else declared(config)
    return make, _inputs(library, config), declaration


def _inputs(library: Any, config: Any) -> Any:
    """Return the named inputs of a model: pixels, or tokens."""
    generator = library.Generator().manual_seed(0)
    size = getattr(config, "image_size", None)
    if size is not None or hasattr(config, "num_channels"):
        sides = size if isinstance(size, list | tuple) else (size or 224,) * 2
        shape = (IMAGES, getattr(config, "num_channels", 3), *sides)
        return {"pixel_values": library.randn(shape, generator=generator)}
    vocabulary = config.vocab_size
    tokens = library.randint(vocabulary, (1, TOKENS), generator=generator)
    return {"input_ids": tokens}
