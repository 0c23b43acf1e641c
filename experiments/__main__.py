"""Run an experiment: ``python -m experiments NAME [--quick] [--out DIR] [--seed N]``.

``python -m experiments new NAME > experiments/NAME.py`` begins one of your own.

Writes NAME.npz (what was computed), NAME.json (how: configuration, versions, machine,
wall time, and the checks) and NAME.png, and prints the table of checks. Exits 1 if a
check fails, 2 on bad usage.

Compiled programs are kept in the user's cache folder, so that it starts sooner the next
time; --no-cache keeps none, and JAX_COMPILATION_CACHE_DIR says where, if it is set.

Until it is done, finished blocks of samples are kept in NAME.blocks: if it is stopped,
the same command goes on from there. With --distributed it runs on all devices of a
cluster.
"""

import ast
import difflib
import importlib.util
import json
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import jaxlib
import numpy as np
import platformdirs
import scipy
import tyro
from jax.experimental import multihost_utils
from tqdm import tqdm

import experiments
import lognorm_jax
from experiments import _check, _cluster, _figure, _job, _machine

PROGRAMS = platformdirs.user_cache_path("lognorm_jax") / "programs"
NO_CLAIM = "It has no claim: begin its file with a docstring."


def names() -> list[str]:
    """Return the experiments: the modules of this folder that do not begin with an
    underscore, and are not empty.
    """
    folders = map(Path, experiments.__path__)
    files = [file for folder in folders for file in folder.glob("[!_]*.py")]
    # one that is about to be written by a shell is still empty
    return sorted(file.stem for file in files if file.stat().st_size)


def versions() -> dict[str, str]:
    """Return what the numbers of an experiment depend on besides its source."""
    modules = (lognorm_jax, jax, jaxlib, np, scipy)
    return {
        "python": platform.python_version(),
        **{m.__name__: m.__version__ for m in modules},
    }


def run(name: str, quick: bool = False, out: Path | None = None, seed: int = 0) -> int:
    """Compute, check and draw one experiment; return the exit code.

    Of several processes all compute, and the first writes and prints.
    """
    folder = out or Path("results/quick" if quick else "results")
    try:
        experiment = importlib.import_module(f"experiments.{name}")
        key = jax.random.key(seed)
        folder.mkdir(parents=True, exist_ok=True)
    except ModuleNotFoundError as error:
        install = "pip install -e '.[experiments,models]'"
        return _refuse(f"{name} needs {error.name}, which is not installed: {install}")
    except OverflowError as error:
        return _refuse(f"--seed {seed}: {error}")
    except OSError as error:
        return _refuse(f"--out {folder}: {error}")

    first = jax.process_index() == 0
    blocks = folder / f"{name}.blocks"
    if first:
        _announce(experiment, blocks)
    record = {"experiment": name, "quick": quick, "seed": seed}
    results, seconds = _computed(experiment, key, record, blocks, first)

    rows = experiment.check(results)
    verdict = _check.overall(rows)
    if first:
        record["seconds"] = round(seconds, 1)
        _write(folder, record, results, rows)
        _figure.save(experiment.draw(results), folder / f"{name}.png")
        shutil.rmtree(blocks, ignore_errors=True)

        print(_check.LEGEND)
        print(_check.table(rows))
        print(f"\nMachine: {_machine.sentence()}.")
        written = f"Written: {folder / name}.npz, .json, .png"
        print(f"{name}: {verdict} in {seconds:.0f} s. {written}")
    return 0 if verdict == "pass" else 1


def _computed(experiment, key, record, blocks: Path, first: bool) -> tuple[dict, float]:
    """Return the results of an experiment, and the seconds that they took."""
    spec = {**record, "versions": versions(), "source": _job.source_digest()}
    started = time.time()
    bar = tqdm(total=0, unit="", unit_scale=True, dynamic_ncols=True, disable=not first)
    with bar:
        job = _job.Job(key, record["quick"], bar, blocks, spec)
        results = experiment.compute(job)
    seconds = time.time() - started
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("all processes have read the blocks")
    return results, seconds


def _write(folder: Path, record: dict, results, rows: list[_check.Row]) -> None:
    """Write what was computed, and how."""
    name, arrays = record["experiment"], _job.flat(results)
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    whole = {
        **record,
        "machine": _machine.record(),
        "versions": versions(),
        "arrays": {array: value.shape for array, value in arrays.items()},
        "checks": [row._asdict() for row in rows],
    }
    text = json.dumps(whole, indent=1, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n")


def _refuse(message: str) -> int:
    """Say what is wrong with the command; return its exit code."""
    print(message, file=sys.stderr)
    return 2


def _announce(experiment, blocks: Path) -> None:
    """Print the claim, and what there is of a run that was stopped."""
    print((experiment.__doc__ or NO_CLAIM).strip().split("\n\n")[0], "\n")
    finished = len(list(blocks.glob("*/blocks-*.npz")))
    if finished:
        print(f"Going on from {blocks}; files of finished blocks: {finished}.\n")


def smallest(name: str) -> str:
    """Return the source of the smallest experiment, under a name of its own."""
    source = Path(__file__).with_name("_smallest.py").read_text(encoding="utf-8")
    return source.replace("experiments NAME", f"experiments {name}")


def _new(arguments: list[str]) -> int:
    """Print the smallest experiment; return the exit code."""
    name = arguments[0] if len(arguments) == 1 else ""
    if not name.isidentifier() or name.startswith("_") or name in (*names(), "new"):
        usage = "python -m experiments new NAME > experiments/NAME.py"
        allowed = "NAME: a new Python name that does not begin with an underscore"
        return _refuse(f"{usage}\n{allowed}; there are: {', '.join(names())}.")
    print(smallest(name), end="")
    return 0


def keep_programs() -> None:
    """Let JAX keep compiled programs from one process to the next, unless it is told
    where by a setting of its own.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(PROGRAMS))
        # also those that took only a moment: there are many
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _require_known(arguments: list[str]) -> None:
    """End with code 2, and the names there are, if the first argument is no
    experiment.
    """
    asked = arguments[0] if arguments else "-"
    if asked.startswith("-") or asked in names():
        return
    near = difflib.get_close_matches(asked, names(), n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    print(
        f"{asked}: no such experiment.{meant} There are: {', '.join(names())}.",
        file=sys.stderr,
    )
    sys.exit(2)


def _command(name: str) -> Callable[..., int]:
    """Return the command of an experiment, with its claim for help."""
    arg = tyro.conf.arg

    def start(
        quick: Annotated[bool, arg(help="Fewer samples, the same code.")] = False,
        out: Annotated[
            Path | None, arg(help="Folder: results, or with --quick results/quick.")
        ] = None,
        seed: Annotated[int, arg(help="Seed of the random key.")] = 0,
        distributed: Annotated[
            str | None,
            arg(
                metavar="auto|HOST:PORT,COUNT,INDEX",
                help="Join the other processes: auto on Slurm, TPU pods, Open MPI "
                "and Kubernetes; elsewhere the address of the first process, how "
                "many there are, and which this is, from 0. They must share --out.",
            ),
        ] = None,
        no_cache: Annotated[
            bool, arg(help=f"Do not keep compiled programs in {PROGRAMS}.")
        ] = False,
    ) -> int:
        if not no_cache:
            keep_programs()
        if distributed is not None and not _cluster.join(distributed):
            return 2
        return run(name, quick, out, seed)

    source = Path(importlib.util.find_spec(f"experiments.{name}").origin)
    tree = ast.parse(source.read_text(encoding="utf-8"))
    claim, *more = (ast.get_docstring(tree) or NO_CLAIM).split("\n\n")
    asked = name in sys.argv  # only then all of it
    start.__doc__ = "\n\n".join([claim, *more] if asked else [claim])
    return start


def main() -> None:
    """Read the command line; each experiment is a command."""
    if sys.argv[1:2] == ["new"]:
        sys.exit(_new(sys.argv[2:]))
    commands = {name: _command(name) for name in names()}
    _require_known(sys.argv[1:])
    with _cluster.together():
        try:
            exit_code = tyro.extras.subcommand_cli_from_dict(
                commands,
                prog="python -m experiments",
                description=__doc__,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        except KeyboardInterrupt:
            told = "Stopped. The same command goes on from the finished blocks."
            print(f"\n{told}", file=sys.stderr)
            exit_code = 130
        sys.exit(exit_code)


if __name__ == "__main__":
    main()
