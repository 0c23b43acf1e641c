import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax import paths, runs, sampling

pytestmark = pytest.mark.float32

SPEC = {"path": "dense", "widths": [5, 4, 4]}
KEY = jax.random.key(3)
OPTIONS = {"block_size": 16, "blocks_per_call": 2}


def PATH(key):
    """A cheap path with two leaves, of which some samples are dead."""
    x = jax.random.normal(key, (2,))
    return paths.Trace(jnp.where(x > 2, -jnp.inf, x), x**2)


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("engine", [sampling.sample, sampling.stream])
def test_invariance_stored_or_not_and_the_number_of_devices(engine, tmp_path):
    plain = engine(PATH, KEY, 1000, **OPTIONS)
    for count in (1, 4):
        run = runs.open_run(tmp_path / str(count), SPEC, blocks_per_file=5)
        stored = engine(
            PATH, KEY, 1000, devices=jax.devices()[:count], run=run, **OPTIONS
        )
        assert same(stored, plain)
        # 63 blocks, five a file
        assert len(list(run.directory.glob("blocks-*.npz"))) == 13
        assert files(run.directory) == files(tmp_path / "1")


def test_invariance_after_an_interruption(tmp_path):
    """Stopped by an exception in the middle; what was done is not computed again."""
    whole = runs.open_run(tmp_path / "whole", SPEC, blocks_per_file=3)
    expected = sampling.sample(PATH, KEY, 1000, run=whole, **OPTIONS)
    run, done = runs.open_run(tmp_path / "run", SPEC, blocks_per_file=3), []

    def stop(new):
        done.append(new)
        if sum(done) > 500:
            raise KeyboardInterrupt

    one = {"devices": jax.devices()[:1], **OPTIONS}
    with pytest.raises(KeyboardInterrupt):
        sampling.sample(PATH, KEY, 1000, run=run, progress=stop, **one)
    kept = len(list(run.directory.glob("blocks-*.npz")))
    assert 5 <= kept < 21
    (run.directory / ".unfinished-1").write_bytes(b"half of a file")
    done.clear()
    again = runs.open_run(tmp_path / "run", SPEC, blocks_per_file=3)
    result = sampling.sample(PATH, KEY, 1000, run=again, progress=done.append, **one)
    assert same(result, expected) and files(run.directory) == files(whole.directory)
    assert done[:kept] == [48] * kept and sum(done) == 1000


def test_exact_only_what_is_missing_is_computed(tmp_path):
    counted = []

    def path(key):
        jax.debug.callback(counted.append, jnp.uint32(1))  # once a block
        return jax.random.normal(key)

    def computed():
        sampling.sample(path, KEY, 1000, run=run, devices=jax.devices()[:2], **OPTIONS)
        jax.effects_barrier()
        number = len(counted)
        counted.clear()
        return number

    run = runs.open_run(tmp_path, SPEC, blocks_per_file=1)
    assert computed() == 63 and computed() == 0
    for i in (7, 9, 10):
        next(tmp_path.glob(f"blocks-{i:08d}-*.npz")).unlink()
    assert computed() == 3


def test_exact_damage_is_found_named_and_recomputed(tmp_path):
    run = runs.open_run(tmp_path, SPEC, blocks_per_file=8)
    expected = sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS)
    before = files(tmp_path)
    sealed = run.bind(json.loads(before["sampling.json"])["spec"], 16, 63 * 16)
    names = sorted(name for name in before if name.endswith(".npz"))
    for i, damage in enumerate(
        [
            lambda content: content[:-100],
            lambda content: b"",
            lambda content: content[:200] + bytes([content[200] ^ 4]) + content[201:],
            lambda content: bytes([content[0] ^ 1]) + content[1:],
        ]
    ):
        path = tmp_path / names[i]
        path.write_bytes(damage(before[names[i]]))
        with pytest.raises(OSError, match=f"{names[i]}: damaged"):
            sealed.read(i)
        with pytest.warns(
            UserWarning, match=rf"{names[i]}: damaged.*It is computed again"
        ):
            result = sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS)
        assert same(result, expected) and files(tmp_path) == before
    (tmp_path / names[0]).unlink()
    assert sealed.missing(8) == [0]
    with pytest.raises(OSError, match=r"file 0 is missing"):
        sealed.read(0)


def test_exact_another_run_is_refused(tmp_path):
    run = runs.open_run(tmp_path, SPEC)
    sampling.stream(PATH, KEY, 100, run=run, **OPTIONS)
    before = files(tmp_path)
    with pytest.raises(
        ValueError, match=r"spec.json differs in widths: \[5, 4, 4\] there, \[9\] now"
    ):
        runs.open_run(tmp_path, {**SPEC, "widths": [9]})
    with pytest.raises(
        ValueError, match=r"differs in key: \[0, 3\] there, \[0, 4\] now.*start afresh"
    ):
        sampling.stream(PATH, jax.random.key(4), 100, run=run, **OPTIONS)
    for wrong in (
        lambda: sampling.stream(PATH, KEY, 100, run=run, block_size=8),
        lambda: sampling.sample(PATH, KEY, 100, run=run, **OPTIONS),
        lambda: sampling.stream(
            PATH, KEY, 100, run=runs.open_run(tmp_path, SPEC, blocks_per_file=3)
        ),
    ):
        with pytest.raises(ValueError, match=r"sampling.json differs in"):
            wrong()
    for changed, shown in (({}, "none now"), ({**SPEC, "path": None}, "null now")):
        with pytest.raises(
            ValueError, match=rf'differs in path: "dense" there, {shown}'
        ):
            runs.open_run(tmp_path, {"widths": [5, 4, 4]} | changed)
    assert files(tmp_path) == before
    (tmp_path / "spec.json").write_text(
        (tmp_path / "spec.json").read_text().replace("5", "6")
    )
    with pytest.raises(ValueError, match=r"one whose spec.json is whole"):
        runs.open_run(tmp_path, SPEC)


def test_exact_bad_arguments(tmp_path):
    for bad in (None, "dense", [1]):
        with pytest.raises(ValueError, match=r"spec = .*must be a dictionary"):
            runs.open_run(tmp_path, bad)
    for bad in (
        {"x": np.float32(1)},
        {"x": float("nan")},
        {"x": PATH},
        {1: 2},
        {"x": [{1: 2}]},
    ):
        with pytest.raises(
            ValueError, match=r"spec = .*made of strings, finite numbers"
        ):
            runs.open_run(tmp_path, bad)
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match=r"blocks_per_file = "):
            runs.open_run(tmp_path, SPEC, blocks_per_file=bad)
    for bad in (3, "", None):
        with pytest.raises(ValueError, match=r"directory = .*a path"):
            runs.open_run(bad, SPEC)
    with pytest.raises(ValueError, match=r"run = 'results': must be a Run"):
        sampling.sample(PATH, KEY, 10, run="results")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        runs.open_run(tmp_path / "file", SPEC)


def test_exact_nothing_is_pickled(tmp_path):
    run = runs.open_run(tmp_path, SPEC)
    sampling.sample(
        lambda key: {"a": jax.random.normal(key), "b": [jax.random.normal(key)]},
        KEY,
        9,
        run=run,
    )
    for path in tmp_path.glob("*.npz"):
        with np.load(path, allow_pickle=False) as arrays:
            assert {name: arrays[name].shape for name in arrays} == {
                "block['a']": (1, 256),
                "block['b'][0]": (1, 256),
            }
    assert (
        json.loads((tmp_path / "sampling.json").read_text())["spec"]["block_size"]
        == 256
    )


def test_exact_blocks_belong_to_their_number_and_their_run(tmp_path):
    """Files that changed places, or came from another run, are computed again."""
    expected = sampling.sample(PATH, KEY, 1000, **OPTIONS)
    run = runs.open_run(tmp_path / "run", SPEC, blocks_per_file=8)
    sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS)
    other = runs.open_run(tmp_path / "other", SPEC, blocks_per_file=8)
    sampling.sample(PATH, jax.random.key(4), 1000, run=other, **OPTIONS)
    (run.directory / "blocks-mine.npz").write_bytes(b"not of the run, and left alone")
    before = files(run.directory)
    own, foreign = (sorted(r.directory.glob("blocks-0*.npz")) for r in (run, other))
    swapped = [
        p.with_name(p.name.replace(f"0{i}-", f"0{1 - i}-"))
        for i, p in enumerate(own[:2])
    ]
    for path, target in zip(own[:2], swapped, strict=True):
        path.rename(target)
    own[5].unlink()
    (run.directory / foreign[5].name).write_bytes(foreign[5].read_bytes())
    with pytest.warns(UserWarning, match=r"of another run") as found:
        result = sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS)
    assert len(found) == 3 and same(result, expected) and files(run.directory) == before
    # then nothing says whose blocks these are
    (run.directory / "sampling.json").unlink()
    with pytest.warns(UserWarning, match=r"of another run"):
        result = sampling.sample(PATH, jax.random.key(4), 1000, run=run, **OPTIONS)
    assert same(result, sampling.sample(PATH, jax.random.key(4), 1000, **OPTIONS))


def test_exact_what_is_bad_beside_a_whole_file_is_passed_over(tmp_path):
    """A damaged file, a folder, a broken link, a pipe: each before and after it."""
    run = runs.open_run(tmp_path, SPEC, blocks_per_file=8)
    expected = sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS)
    before = {
        name: content for name, content in files(tmp_path).items() if "blocks" in name
    }
    for i, make in enumerate(
        [
            lambda path: path.write_bytes(b"of another run"),
            lambda path: path.mkdir(),
            lambda path: path.symlink_to(tmp_path / "nowhere"),
            os.mkfifo,
        ]
    ):
        own = next(tmp_path.glob(f"blocks-{i:08d}-*"))
        for digit in "0f":
            make(own.with_name(own.name[:-36] + digit * 32 + ".npz"))
    sealed = run.bind(
        json.loads((tmp_path / "sampling.json").read_text())["spec"], 16, 63 * 16
    )
    with pytest.warns(UserWarning, match=r"Another file is whole") as found:
        assert sealed.missing(8) == []
    assert len(found) == 8
    for _ in range(2):
        with pytest.warns(
            UserWarning, match=r"(not a file|damaged).*Another file is whole"
        ):
            assert same(sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS), expected)
    assert all(
        (tmp_path / name).read_bytes() == content for name, content in before.items()
    )


def test_exact_what_is_no_file_makes_way(tmp_path):
    """In the place of a file: it is computed again, and what is in it stays."""
    run = runs.open_run(tmp_path, SPEC, blocks_per_file=8)
    expected = sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS)
    before = files(tmp_path)
    first, second, *_ = (tmp_path / name for name in sorted(before) if "blocks" in name)
    first.unlink()
    first.mkdir()
    (first / "mine").write_text("to keep")
    second.unlink()
    second.symlink_to(tmp_path / "nowhere")
    (tmp_path / ".unfinished-folder").mkdir()
    with pytest.warns(UserWarning, match=r"not a file. It is computed again") as found:
        assert same(sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS), expected)
    assert len(found) == 2
    assert all(
        (tmp_path / name).read_bytes() == content for name, content in before.items()
    )
    assert next(tmp_path.glob(f"folder-*-{first.name}/mine")).read_text() == "to keep"
    for name in ("sampling.json", "spec.json"):
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match=rf"one whose {name} is whole"):
            sampling.sample(
                PATH, KEY, 1000, run=runs.open_run(tmp_path, SPEC, blocks_per_file=8)
            )


def test_exact_any_names_types_and_sizes_are_stored(tmp_path):
    def path(key):
        x = jax.random.normal(key, (2,))
        return {"file": x.astype(jnp.bfloat16), "allow_pickle": x > 0, "empty": x[:0]}

    run = runs.open_run(tmp_path, SPEC)
    stored = sampling.sample(path, KEY, 300, run=run)
    plain = sampling.sample(path, KEY, 300)
    for name, leaf in plain.items():
        assert stored[name].dtype == leaf.dtype and stored[name].shape == leaf.shape
        assert np.array_equal(stored[name], leaf)


def test_exact_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    """Full after a few files: a clear error, and a new start goes on from them."""
    run, room, sync = runs.open_run(tmp_path, SPEC, blocks_per_file=2), [9], os.fsync

    def full(file):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            OSError, match=r"No space left on device: blocks-.*start the same run again"
        ) as caught:
            sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path)
    kept = files(tmp_path)
    assert len(kept) == 6 and not any(name.startswith(".") for name in kept)
    result = sampling.sample(PATH, KEY, 1000, run=run, **OPTIONS)
    assert same(result, sampling.sample(PATH, KEY, 1000, **OPTIONS))
    assert kept.items() <= files(tmp_path).items()


PROGRAM = """
import sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
from lognorm_jax import ensembles, masks, paths, runs, sampling, weights
ensemble = ensembles.Ensemble((30,) * 101, weights.normal(), masks.relu())
spec = {"ensemble": ensembles.describe(ensemble)}
run = runs.open_run(sys.argv[1], spec, blocks_per_file=10)
options = {"block_size": 100, "run": run, "blocks_per_call": 2}
path = paths.transport(ensemble)
moments = sampling.stream(path, jax.random.key(0), 10**5, **options)
np.savez(sys.argv[1] + "/summary.npz", **moments._asdict())
"""


@pytest.mark.slow
def test_invariance_killed_twenty_times(tmp_path):
    """SIGKILL at twenty random moments; each new start has other devices."""

    def start(directory, devices):
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(directory), str(devices)]
        )

    def done():
        return sorted((tmp_path / "run").glob("blocks-*.npz"))

    assert start(tmp_path / "whole", 1).wait() == 0
    rng, killed, progress = random.Random(0), 0, set()
    while killed < 20:
        process, before = start(tmp_path / "run", rng.choice([1, 2, 4])), done()
        if killed % 4:  # else anywhere, in the middle of the start as well
            while process.poll() is None and done() == before:
                time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.4 if killed % 4 else 4))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            progress.add(len(done()))
        # it came to its end: most files are lost, so that the next one has work again
        else:
            assert files(tmp_path / "run") == files(tmp_path / "whole")
            for path in rng.sample(done(), 90):
                path.unlink()
    assert len(progress) > 5
    assert start(tmp_path / "run", 2).wait() == 0
    assert files(tmp_path / "run") == files(tmp_path / "whole")
    assert len(done()) == 100


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_exact_a_real_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        started = [sys.executable, "-c", PROGRAM, str(disk), "1"]
        ended = subprocess.run(started, capture_output=True, text=True)
        assert (
            ended.returncode == 1 and "No space left on device: blocks-" in ended.stderr
        )
        kept = files(disk)
        assert 5 < len(kept) < 102 and not any(name.startswith(".") for name in kept)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert subprocess.run(started).returncode == 0
        assert kept.items() <= files(disk).items()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
