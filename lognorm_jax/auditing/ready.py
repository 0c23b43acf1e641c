"""Ready declarations, of frameworks' defaults and of model families; and how a model of
the transformers library is made without weights.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from lognorm_jax._tools import checks
from lognorm_jax.auditing import _blocks, declarations
from lognorm_jax.auditing.declarations import Declaration

__all__ = ["READY", "of_hub", "ready"]

TOKENS = 32  # of an input
IMAGES = 4  # of an input, which batch normalisation needs several of
_ROOT = 3**-0.5  # sd of a uniform number on [−1, 1]
_PARTS = ("weight", "bias")

_ZERO, _ONE = declarations.constant(0.0), declarations.constant(1.0)
_LINEAR = declarations.fan_in(_ROOT, "uniform")

# by the class of the layer; what is not here is not declared
_PYTORCH: Declaration = declarations.Ready(
    {
        **{
            f"{kind}/{part}": _LINEAR
            for kind in ("Linear", "Conv?d")
            for part in _PARTS
        },
        # by what PyTorch takes for the fan-in of a transposed convolution
        **{
            f"ConvTranspose?d/{part}": declarations.fan_out(_ROOT, "uniform")
            for part in _PARTS
        },
        "Embedding/weight": declarations.normal(1.0),
        "EmbeddingBag/weight": declarations.normal(1.0),
        "*Norm*/weight": _ONE,
        "*Norm*/bias": _ZERO,
        "MultiheadAttention/*_bias": _ZERO,
        "MultiheadAttention/*_weight": declarations.fan_average(1.0, "uniform"),
        "NonDynamicallyQuantizableLinear/weight": _LINEAR,
        "NonDynamicallyQuantizableLinear/bias": _ZERO,
    }
)
_FLAX: Declaration = declarations.Ready(
    {
        # of recurrent cells, which are orthogonal
        **{f"*{name}.kernel": declarations.unknown() for name in ("dense_h", "hh")},
        "*Norm/scale": _ONE,
        "*Norm/bias": _ZERO,
        **{
            f"{kind}/kernel": declarations.fan_in(1.0, "truncated normal")
            for kind in ("Linear", "Dense", "Conv")
        },
        **{f"{kind}/bias": _ZERO for kind in ("Linear", "Dense", "Conv")},
        # the one layer of a Linen module
        "params.kernel": declarations.fan_in(1.0, "truncated normal"),
        "params.bias": _ZERO,
    }
)
_EQUINOX: Declaration = declarations.Ready(
    {
        **{
            f"{kind}/{part}": _LINEAR
            for kind in ("Linear", "Conv?d")
            for part in _PARTS
        },
        "Embedding/weight": declarations.normal(1.0),
        "*Norm/weight": _ONE,
        "*Norm/bias": _ZERO,
    }
)


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

    Args:
        name: "equinox", "flax" or "pytorch".

    Returns:
        The declaration, by the classes of layers; what it does not name is not
        declared.

    Raises:
        ValueError: for other names.

    Source:
        The frameworks' own code; held against their layers in tests/test_audits.py and
        tests/test_torch.py.
    """
    return READY[checks.one_of("declaration", name, READY)]


def resolved(declaration: object) -> Declaration:
    """Return a declaration: one that is ready, by its name, or a mapping, checked."""
    if declaration is None:
        return {}
    if isinstance(declaration, str):
        return ready(declaration)
    return declarations.checked(declaration)


def require_torch() -> None:
    """Raise ``ValueError`` without PyTorch, saying how to install it."""
    _blocks.torch()


def of_hub(
    kind: str, settings: Mapping[str, Any]
) -> tuple[Callable[[], Any], Any, Declaration]:
    """Return how to make a model of transformers by its type, an input, and what is
    declared of it; nothing is downloaded.

    Args:
        kind: a model type, such as "gpt2".
        settings: of its configuration by name, where they are not the default.

    Returns:
        A function () -> model, its input by name as tensors, and the declaration, which
        is empty for a type whose initialisation is not known here.

    Raises:
        ValueError: without PyTorch or transformers, saying how to install it; for types
            and settings that it does not know; and for types of which it is not known
            what they take.
    """
    library = _blocks.torch()
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

    try:
        inputs = _inputs(library, config)
    except Exception as error:
        # of any kind: configurations have all sorts of fields
        raise ValueError(
            f"model type = {kind!r}: what it takes is not known ({error}). Write a "
            "function () -> (module, inputs), and audit torch:MODULE:FUNCTION."
        ) from error

    make.__name__ = kind
    declared = _OF_CONFIG.get(kind)
    declaration = declarations.Ready({} if declared is None else declared(config))
    return make, inputs, declaration


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
