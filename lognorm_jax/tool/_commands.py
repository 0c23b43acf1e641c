"""The verbs of the command line, each a function of strings and numbers.

They print, and return the exit code: 0 where nothing was found, 1 for a finding; what
cannot be run raises ``ValueError``, which is 2.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import tyro

from lognorm_jax._tools import checks, tables
from lognorm_jax.tool import _predictions, _subjects, advice, plots, spoken

COMMON = (
    *("relu", "leaky:0.01", "linear", "tanh", "gelu", "silu"),
    *("elu", "selu", "mish", "sigmoid", "softplus"),
)
Kind = Literal["vanilla", "balanced", "post", "mask model"]


def law(
    shapes: tyro.conf.Positional[tuple[str, ...]],
    *,
    activation: str = "relu",
    weights: str = "normal",
    head: Literal["same", "linear"] = "same",
    fan: Literal["in", "out"] = "in",
    gain: float | None = None,
    bias_scale: float = 0.0,
    residual: Kind | None = None,
    branch_scale: float = 0.5**0.5,
    factor: float = 10.0,
    samples: int = 4_000,
    seed: int = 0,
    json: bool = False,
    plot: str | None = None,
) -> int:
    """The law of ln(‖Ju‖²/‖u‖²), J the input-output Jacobian, of networks by shape.

    Exact where theory is, samples with standard errors where not; dead is the
    probability that nothing gets through.

    Args:
        shapes: widths from input to output, such as 64-100x10-1: a layer of 64, ten of
            100, one output.
        activation: relu, linear, tanh, gelu, silu, …, leaky:SLOPE, sine:FREQUENCY.
        weights: normal, orthogonal, uniform, rademacher, laplace, student_t:DOF,
            sparse:DENSITY, fixed_fan_in:K or n_of_m:N:M.
        head: linear for a last layer without activation.
        fan: of the variance of a weight, gain² over fan-in or fan-out.
        gain: default that of the activation: √2 for relu.
        bias_scale: standard deviation of biases.
        residual: a kind of residual network; shapes then have equal widths.
        branch_scale: λ of blocks √(1 − λ²) z + λ·branch.
        factor: a coordinate's root mean square is stable while it changes by less.
        samples: drawn where no exact law is known.
        seed: of the samples.
        json: print JSON.
        plot: a file for a figure of densities and quantiles.
    """
    example = "at least one, such as 64-100x10"
    checks.require(len(shapes) > 0, "shapes", shapes, example)
    if plot is not None:
        plots.require_writable(plot)
    found = []
    for shape in shapes:
        found += _predictions.predictions(
            shape,
            activation=activation,
            weight_law=weights,
            head=head,
            fan=fan,
            gain=gain,
            bias_scale=bias_scale,
            residual=residual,
            branch_scale=branch_scale,
            factor=factor,
            samples=samples,
            seed=seed,
        )
    if json:
        _print_json([one.as_dict() for one in found])
    else:
        print("\n".join(_predictions.table(found)))
        used = [activation, f"{weights} weights", f"fan {fan}"]
        print(f"\nln(‖Ju‖²/‖u‖²) of networks with {', '.join(used)}.")
    if plot is not None:
        plots.save(plots.laws(found), plot)
    return 0


def advise(
    *,
    width: int,
    depth: int,
    activation: str = "relu",
    factor: float = 10.0,
    share: float = 0.05,
    fan_in: int = 16,
    simulate: int = 0,
    json: bool = False,
) -> int:
    """What gain, depth, width and skips a network should have to train, and why.

    Args:
        width: of all layers.
        depth: number of layers.
        activation: as for law.
        factor: norms may change by it.
        share: of initialisations that may change by more.
        fan_in: weights per unit of the sparse network that is compared.
        simulate: how many networks confirm each depth.
        json: print JSON.
    """
    phi = spoken.activation(activation)
    found = advice.advise(
        width,
        depth,
        phi,
        factor=factor,
        share=share,
        fan_in=fan_in,
        simulate=simulate,
    )
    if json:
        _print_json(found.as_dict())
    else:
        print(found)
    return 0


def gains(
    activations: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    width: int | None = None,
    json: bool = False,
) -> int:
    """Gains that keep activations and gradients: std of a weight times √fan-in.

    Args:
        activations: as for law; default the common ones.
        width: of the layers, for the correction that keeps typical norms and not only
            mean squares.
        json: print JSON.
    """
    found = [
        advice.gains(spoken.activation(name), width) for name in activations or COMMON
    ]
    if json:
        _print_json([one._asdict() for one in found])
        return 0
    rows = [["activation", "keeps activations", "keeps gradients"]]
    if width is not None:
        rows[0] += [f"activations, width {width}", f"gradients, width {width}"]
    for one in found:
        row = [one.activation, f"{one.forward:.4f}", f"{one.backward:.4f}"]
        if width is not None:
            row.append(f"{one.forward * one.forward_correction:.4f}")
            row.append(f"{one.backward * one.backward_correction:.4f}")
        rows.append(row)
    print("\n".join(tables.columns(rows)))
    return 0


def defaults(
    *, activation: str = "relu", factor: float = 10.0, json: bool = False
) -> int:
    """What default initialisations of frameworks do to gradients, and how deep they go.

    Args:
        activation: as for law.
        factor: norms may change by it.
        json: print JSON.
    """
    found = advice.defaults(spoken.activation(activation), factor=factor)
    if json:
        _print_json([one._asdict() for one in found])
        return 0
    title = f"layers until × or ÷ {factor:g}"
    rows = [["framework", "layers", "weights", "ln E R, first", title]]
    for one in found:
        deep = f"{one.depth:,}"
        if one.depth >= advice.DEEPEST:
            deep = f"over {deep}"
        rows.append([one.framework, one.layer, one.law, f"{one.log_ratio:.3f}", deep])
    print("\n".join(tables.columns(rows)))
    print(f"\nGradients of {found[0].activation} networks, wide layers.")
    return 0


def audit(
    subject: tyro.conf.Positional[str],
    *,
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = (),
    declare: str | None = None,
    blocks: tuple[str, ...] = (),
    fixed: tuple[str, ...] = (),
    input: str | None = None,
    tokens: int | None = None,
    seeds: int | None = None,
    kinds: tuple[Literal["activations", "jvp", "vjp"], ...] = (),
    factor: float = 10.0,
    require_stable: bool = False,
    listing: bool = False,
    json: bool = False,
    html: str | None = None,
    plot: str | None = None,
) -> int:
    """Is the initialisation of a model what it is declared to be, and is it stable?

    Nothing is downloaded and no weights are loaded. Exits with 1 for a finding.

    Args:
        subject: MODULE:FUNCTION of a function key -> model of JAX;
            torch:MODULE:FUNCTION of one () -> module of PyTorch, or (module, inputs);
            or hf:TYPE, a model type of transformers with its default configuration.
        set: NAME=VALUE of the configuration of hf:TYPE; may be repeated.
        declare: pytorch, flax or equinox, their defaults; or a JSON file such as
            {"*.bias": "constant:0", "*.weight": "fan_in:1.414"}. Without one, only what
            is surely wrong is a finding.
        blocks: paths of the blocks to follow, in the order of use; of JAX with the
            activations after them, such as layers[0]+relu.
        fixed: patterns of parameters that may be the same for all seeds.
        input: shape of one example (JAX) or of a batch (PyTorch), such as 3x32x32.
        tokens: size of the vocabulary, of inputs that are tokens.
        seeds: how many initialisations.
        kinds: what is followed through blocks: activations, tangents (jvp) or gradients
            (vjp); default all.
        factor: norms may change by it.
        require_stable: exit with 1 where norms vanish or explode, too.
        listing: print the modules as a tree, with numbers beside each.
        json: print JSON.
        html: a file for a page of the report.
        plot: a file for a figure of what blocks do to norms.
    """
    if plot is not None:
        plots.require_writable(plot)
    if html is not None:
        plots.require_file("html", html)
    found = _subjects.audit(
        subject,
        settings=set,
        declare=declare,
        blocks=blocks,
        fixed=fixed,
        shape=input,
        tokens=tokens,
        seeds=seeds,
        kinds=kinds,
        factor=factor,
    )
    followed = bool(found.reports)
    give = "of a model that is followed: give --input, and --blocks"
    checks.require(followed or not require_stable, "require_stable", True, give)
    checks.require(followed or plot is None, "plot", plot, give)
    if json:
        _print_json(found.as_dict())
    else:
        print(found)
    if listing and not json:
        print(f"\n{found.listing()}")
    if html is not None:
        page = f"<!doctype html><meta charset=utf-8>{found._repr_html_()}"
        Path(html).write_text(page, encoding="utf-8")
    if plot is not None:
        plots.save(plots.reports(found.reports), plot)
    return found.exit_code(require_stable)


def _print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    """Return what JSON can hold, of a number or a record."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.item() if hasattr(value, "item") else str(value)


VERBS: dict[str, Callable[..., int]] = {
    "audit": audit,
    "law": law,
    "advise": advise,
    "gains": gains,
    "defaults": defaults,
}
