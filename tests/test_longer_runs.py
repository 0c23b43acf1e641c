"""A run made longer, or read as a shorter one, has the draws of that length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax import paths, runs, sampling

KEY = jax.random.key(3)
OPTIONS = {"block_size": 16, "blocks_per_call": 2}
ENGINES = [sampling.sample, sampling.stream]


def PATH(key):
    """A cheap path with two leaves, of which some samples are dead."""
    x = jax.random.normal(key, (2,))
    return paths.Trace(jnp.where(x > 2, -jnp.inf, x), x**2)


def opened(directory):
    # 48 samples a file
    return runs.open_run(directory, {"path": "dense"}, blocks_per_file=3)


def blocks(directory):
    return {path.name: path.read_bytes() for path in directory.glob("blocks-*.npz")}


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_invariance_a_longer_run_is_that_run(engine, tmp_path):
    """Bit for bit, also when the last file, or its last block, was not full."""
    for steps in ((90, 96, 200), (1, 2, 40, 200), (192, 200)):
        run = opened(tmp_path / str(steps))
        for num_samples in steps:
            before = {
                path: path.stat().st_ino
                for path in run.directory.glob("blocks-*-48-*.npz")
            }
            result = engine(PATH, KEY, num_samples, run=run, **OPTIONS)
            assert same(result, engine(PATH, KEY, num_samples, **OPTIONS))
            assert all(path.stat().st_ino == inode for path, inode in before.items())
        whole = opened(tmp_path / "whole")
        engine(PATH, KEY, 200, run=whole, **OPTIONS)
        assert blocks(run.directory) == blocks(whole.directory)


@pytest.mark.parametrize("engine", ENGINES)
def test_invariance_a_shorter_run_leaves_the_longer_one(engine, tmp_path):
    run = opened(tmp_path)
    longer = engine(PATH, KEY, 200, run=run, **OPTIONS)
    before = blocks(tmp_path)
    for num_samples in (96, 80, 75, 1, 193):
        result = engine(PATH, KEY, num_samples, run=run, **OPTIONS)
        assert same(result, engine(PATH, KEY, num_samples, **OPTIONS))
        assert before.items() <= blocks(tmp_path).items()
    done = []
    assert same(
        engine(PATH, KEY, 200, run=run, progress=done.append, **OPTIONS), longer
    )
    assert done == [48, 48, 48, 48, 8]  # read file by file: nothing was computed


def test_exact_what_a_longer_run_computes(tmp_path):
    """The samples of a last block are all kept; its sums are not a longer run's."""
    counted = []

    def path(key):
        jax.debug.callback(counted.append, jnp.uint32(1))  # once a block
        return paths.Trace(jax.random.normal(key, (1,)), None)

    def computed(engine, num_samples):
        run = opened(tmp_path / engine.__name__)
        engine(path, KEY, num_samples, run=run, devices=jax.devices()[:1], **OPTIONS)
        jax.effects_barrier()
        number = len(counted)
        counted.clear()
        return number

    lengths = (70, 80, 81, 200, 70, 64, 100)
    assert [computed(sampling.sample, n) for n in lengths] == [5, 0, 3, 7, 0, 0, 0]
    assert [computed(sampling.stream, n) for n in lengths] == [5, 2, 3, 10, 2, 0, 1]


@pytest.mark.parametrize("engine", ENGINES)
def test_invariance_interrupted_while_made_longer(engine, tmp_path):
    """Nothing is lost: the shorter run can be read, and the longer one goes on."""
    run = opened(tmp_path)
    shorter = engine(PATH, KEY, 70, run=run, **OPTIONS)

    def stop(new):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine(PATH, KEY, 400, run=run, progress=stop, **OPTIONS)
    for _ in range(2):  # now a file at a time
        with (
            pytest.raises(RuntimeError, match="no room"),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(runs.Run, "write", once(runs.Run.write))
            engine(PATH, KEY, 400, run=run, **OPTIONS)
    assert same(engine(PATH, KEY, 70, run=run, **OPTIONS), shorter)
    assert same(
        engine(PATH, KEY, 400, run=run, **OPTIONS), engine(PATH, KEY, 400, **OPTIONS)
    )


def once(write):
    """Return ``write`` so that it works once, and then raises."""
    calls = []

    def limited(*args):
        calls.append(args)
        if len(calls) > 1:
            raise RuntimeError("no room")
        write(*args)

    return limited


def test_exact_draws_of_another_setting_are_refused(tmp_path):
    """JAX has two ways to split its bits; a run is of one, and says which."""
    sampling.sample(PATH, KEY, 40, run=opened(tmp_path), **OPTIONS)
    other = pytest.raises(
        ValueError, match="threefry_partitionable: true there, false now"
    )
    with jax.threefry_partitionable(False), other:
        sampling.sample(PATH, KEY, 80, run=opened(tmp_path), **OPTIONS)
