"""The public names, by wing: what the pages of the API list, and what words in code on
any page are linked to.
"""

import inspect

import lognorm_jax

WINGS = {
    "products": (
        "What a product is made of",
        ("weights", "masks", "activations", "ensembles"),
    ),
    "laws": ("Laws, and how far they are apart", ("laws",)),
    "theory": (
        "What is known without simulation",
        ("exact", "moments", "martingales", "residuals", "convolutions"),
    ),
    "networks": ("Architectures", ("networks",)),
    "paths": (
        "Paths, tangent kernels, singular values",
        ("paths", "kernels", "spectra"),
    ),
    "sampling": ("Samples of a path", ("sampling", "summaries", "runs")),
    "probing": ("Models of your own", ("models", "probes", "reports")),
    "training": (
        "The first steps of optimization",
        ("training", "optimizers", "losses", "datasets"),
    ),
    "auditing": (
        "Audits of initialisations",
        ("audits", "declarations", "ready", "testing"),
    ),
    "tool": ("Advice, figures, words", ("advice", "plots", "spoken")),
}
MODULES = {module: wing for wing, (_, modules) in WINGS.items() for module in modules}


def members(module: str) -> list[str]:
    """Return the public names of a module of the library, less modules."""
    listed = getattr(lognorm_jax, module)
    names = sorted(listed.__all__)
    return [name for name in names if not inspect.ismodule(getattr(listed, name))]


def public() -> dict[str, str]:
    """Return the page of each public name, such as exact.law."""
    return {
        f"{module}.{name}": f"api/{wing}.md"
        for module, wing in MODULES.items()
        for name in members(module)
    }
