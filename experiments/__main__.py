"""Run an experiment: ``python -m experiments NAME [--quick] [--out DIR] [--seed N]``.

Writes NAME.npz (what was computed), NAME.json (how: configuration, versions, device, wall time, and
the checks) and NAME.png, and prints the table of checks. Exits 1 if a check fails, 2 on bad usage.
"""

import importlib
import json
import pkgutil
import platform
import sys
import time
from pathlib import Path
from typing import Annotated

import jax
import jaxlib
import numpy as np
import scipy
import tyro
from tqdm import tqdm

import lognorm_jax
from experiments import _check, _figure


def names() -> list[str]:
    """Return the experiments: the modules of this folder that do not begin with an underscore."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return [module.name for module in found if not module.name.startswith("_")]


def run(name: str, quick: bool = False, out: Path | None = None, seed: int = 0) -> int:
    """Compute, check and draw one experiment; return the exit code."""
    experiment = importlib.import_module(f"experiments.{name}")
    folder = out or Path("results/quick" if quick else "results")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = jax.random.key(seed)
    except (OSError, OverflowError) as error:
        print(f"--out {folder} --seed {seed}: {error}", file=sys.stderr)
        return 2
    print(experiment.__doc__.strip().split("\n\n")[0], "\n")

    started = time.time()
    with tqdm(unit=" paths", unit_scale=True, dynamic_ncols=True) as bar:
        results = experiment.compute(key=key, quick=quick, bar=bar)
    seconds = time.time() - started

    rows = experiment.check(results)
    np.savez_compressed(folder / f"{name}.npz", **results)
    device = jax.devices()[0]
    record = {
        "experiment": name,
        "quick": quick,
        "seed": seed,
        "seconds": round(seconds, 1),
        "device": f"{len(jax.devices())} × {device.device_kind} ({device.platform})",
        "versions": {
            "python": platform.python_version(),
            **{m.__name__: m.__version__ for m in (lognorm_jax, jax, jaxlib, np, scipy)},
        },
        "arrays": {array: np.shape(value) for array, value in results.items()},
        "checks": [row._asdict() for row in rows],
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _figure.save(experiment.draw(results), folder / f"{name}.png")

    print(_check.LEGEND)
    print(_check.table(rows))
    verdict = _check.overall(rows)
    print(f"\n{name}: {verdict} in {seconds:.0f} s. Written: {folder / name}.npz, .json, .png")
    return 0 if verdict == "pass" else 1


def main() -> None:
    """Read the command line; each experiment is a command."""
    arg = tyro.conf.arg

    def command(name):
        def start(
            quick: Annotated[bool, arg(help="Fewer samples, the same code.")] = False,
            out: Annotated[
                Path | None, arg(help="Folder: results, or with --quick results/quick.")
            ] = None,
            seed: Annotated[int, arg(help="Seed of the random key.")] = 0,
        ) -> int:
            return run(name, quick, out, seed)

        start.__doc__ = importlib.import_module(f"experiments.{name}").__doc__
        return start

    flags = (tyro.conf.FlagCreatePairsOff,)
    commands = {name: command(name) for name in names()}
    exit_code = tyro.extras.subcommand_cli_from_dict(
        commands, prog="python -m experiments", description=__doc__, config=flags
    )
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
