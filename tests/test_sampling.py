import os
import pathlib
import socket
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lognorm_jax import (
    ensembles,
    masks,
    memory,
    networks,
    paths,
    programs,
    sampling,
    summaries,
    weights,
)
from lognorm_jax.sampling import _lanes, _lapack

ENSEMBLE = ensembles.Ensemble((6, *(4,) * 12), weights.normal(), masks.relu())
PATH = paths.dense(ENSEMBLE)
SAMPLES = 700  # not a multiple of the block size


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def reference():
    return sampling.sample(PATH, jax.random.key(3), SAMPLES, block_size=64)


@pytest.fixture(scope="module")
def streamed():
    return sampling.stream(PATH, jax.random.key(3), SAMPLES, block_size=64)


@pytest.mark.parametrize(("num_devices", "blocks_per_call"), [(1, 1), (2, 2)])
def test_invariance_blocks_and_devices(blocks_per_call, num_devices, reference):
    options = {"block_size": 64, "blocks_per_call": blocks_per_call}
    options["devices"] = jax.devices()[:num_devices]
    trace = sampling.sample(PATH, jax.random.key(3), SAMPLES, **options)
    assert same(trace, reference)


def test_invariance_stream_over_blocks_and_devices(streamed):
    options = {"block_size": 64, "blocks_per_call": 1, "devices": jax.devices()[:1]}
    one = sampling.stream(PATH, jax.random.key(3), SAMPLES, **options)
    assert same(one, streamed)


def test_invariance_prefix_of_samples(reference):
    for num_samples in (1, 63, 64, 65):
        trace = sampling.sample(PATH, jax.random.key(3), num_samples, block_size=64)
        assert trace.increment.shape == (num_samples, 12)
        assert same(trace, [leaf[:num_samples] for leaf in reference])


@pytest.mark.parametrize("depth", [1, 5])
def test_invariance_prefix_of_layers(depth, reference):
    shallow = ensembles.Ensemble(
        ENSEMBLE.widths[: depth + 1], weights.normal(), masks.relu()
    )
    trace = sampling.sample(
        paths.dense(shallow), jax.random.key(3), SAMPLES, block_size=64
    )
    assert same(trace, [leaf[:, :depth] for leaf in reference])


def test_invariance_prefix_of_uneven_layers(rounding):
    """Scanned in the deeper product, not in the other: equal up to rounding."""
    deep, shallow = (
        sampling.sample(
            paths.dense(ensembles.Ensemble(widths, weights.normal(), masks.relu())),
            jax.random.key(3),
            64,
            block_size=64,
        )
        for widths in ((5, *(3, 5) * 2), (5, 3, 5))
    )
    for a, b in zip(deep, shallow, strict=True):
        assert np.array_equal(np.isinf(a[:, :2]), np.isinf(b))
        assert np.allclose(a[:, :2], b, rtol=rounding, atol=rounding)


def test_oracle_batches_within_a_block(monkeypatch):
    """Blocks larger than the cache are run in batches; the draws are the same."""
    ensemble = ensembles.Ensemble((40, 40), weights.normal(), masks.leaky_relu(0.1))
    options = {"key": jax.random.key(0), "num_samples": 64, "block_size": 64}
    whole = sampling.sample(paths.dense(ensemble), **options)
    monkeypatch.setattr(programs, "LIVE_FLOATS", {"cpu": 8 * 1600})
    parts = sampling.sample(paths.dense(ensemble), **options)
    assert np.allclose(whole.increment, parts.increment, rtol=0, atol=1e-5)


def test_oracle_stream_against_sample(reference, streamed):
    sampled = summaries.moments(reference)
    assert np.array_equal(streamed.count, sampled.count)
    assert np.array_equal(streamed.dead, sampled.dead)
    assert np.all(streamed.count + streamed.dead == SAMPLES) and streamed.dead[-1] > 0
    spread = np.sqrt(sampled.m2 / sampled.count)
    assert np.allclose(streamed.mean, sampled.mean, rtol=0, atol=1e-6 * spread.max())
    for k, (a, b) in enumerate(zip(streamed[3:], sampled[3:], strict=True), start=2):
        assert np.allclose(
            a / sampled.count, b / sampled.count, atol=1e-5 * spread.max() ** k
        )


def test_oracle_merge_against_all_at_once():
    rng = np.random.default_rng(0)
    x = np.where(rng.random((90, 3)) < 0.2, -np.inf, rng.gamma(0.7, size=(90, 3)))
    x[:30, 1] = -np.inf  # a part with no path alive
    whole = summaries.moments(paths.Trace(x, None))
    parts = [
        summaries.moments(paths.Trace(part, None)) for part in np.split(x, [10, 30, 31])
    ]
    merged = parts[0]
    for part in parts[1:]:
        merged = summaries.merge(merged, part)
    for a, b in zip(merged, whole, strict=True):
        assert np.allclose(a, b, rtol=1e-12)
    alive = x[np.isfinite(x[:, 0]), 0]
    for k in (2, 3, 4):
        central = np.sum((alive - alive.mean()) ** k)
        assert whole[k + 1][0] == pytest.approx(central, rel=1e-12)


def test_exact_no_survivor_is_a_value():
    dead = paths.Trace(np.full((5, 2), -np.inf), None)
    moments = summaries.moments(dead)
    assert np.all(moments.mean == -np.inf) and np.all(moments.m2 == 0)
    summary = summaries.summarise(moments)
    assert np.all(summary.dead_mass.value == 1)
    assert not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(summary))
    assert np.all(summaries.merge(moments, moments).mean == -np.inf)
    narrow = paths.dense(ensembles.Ensemble((1,) * 40, weights.normal(), masks.relu()))
    streamed = sampling.stream(narrow, jax.random.key(0), 16, block_size=64)
    assert streamed.count[-1] == 0 and streamed.mean[-1] == -np.inf
    assert not any(np.any(np.isnan(leaf)) for leaf in streamed)


def test_statistical_summary_errors():
    """The standard errors of mean and variance are the spread over repeated runs."""
    rng = np.random.default_rng(0)
    runs = rng.normal(3, 2, size=(400, 500, 1))
    seen = [summaries.estimate(x[:, 0]) for x in runs]
    for name in ("mean", "variance"):
        spread = np.std([getattr(summary, name).value for summary in seen])
        claimed = np.mean([getattr(summary, name).error for summary in seen])
        assert claimed == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize(("lanes", "told"), [(1, [512, 488]), (2, [1000])])
def test_exact_engine_takes_any_path_and_reports_progress(lanes, told, monkeypatch):
    monkeypatch.setattr(_lanes, "_count", lambda devices: lanes)
    done = []
    values = sampling.sample(
        lambda key: {"normal": jax.random.normal(key, (3,))},
        jax.random.key(0),
        1000,
        blocks_per_call=1,
        devices=jax.devices()[:1],
        progress=done.append,
    )
    assert (
        values["normal"].shape == (1000, 3) and len(np.unique(values["normal"])) > 2990
    )
    assert done == told


def test_exact_sampling_again_does_not_compile_again():
    traced = []

    def path(key):
        traced.append(1)
        return paths.Trace(jax.random.normal(key, (2,)), None)

    counts = []
    for seed, num_samples in ((0, 100), (1, 100_000), (2, 1)):
        sampling.stream(path, jax.random.key(seed), num_samples, blocks_per_call=4)
        counts.append(len(traced))
    assert counts[0] == counts[-1] > 0


def test_invariance_wide_first_layers_that_are_not_scanned(key):
    """On one device the compiler would sum what it knows of a start another way."""
    x = np.ones(100)
    network = networks.relu_mlp((100, 30), 0.1)
    each = (
        paths.dense(ensembles.Ensemble((100, 30), weights.normal(), masks.relu())),
        networks.jacobian_path(network, x, x),
        paths.gram(network, x, x),
    )
    one, two = (
        sampling.sample(
            lambda key: [path(key) for path in each],
            key,
            200,
            block_size=64,
            devices=jax.devices()[:count],
        )
        for count in (1, 2)
    )
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("engine", [sampling.sample, sampling.stream])
def test_exact_refused_inside_transformations(engine, key):
    """Whether the key, the path or nothing is traced: it says how to go on."""

    def scaled(scale):
        def path(key):
            return paths.Trace(scale * jax.random.normal(key, (2,), scale.dtype), None)

        return engine(path, key, 10, block_size=5)

    def of_key(key):
        return engine(PATH, key, 10, block_size=5)

    one = np.float32(1)
    for name, inside in (
        ("key", lambda: jax.jit(of_key)(key)),
        ("key", lambda: jax.vmap(of_key)(jax.random.split(key, 2))),
        ("key", lambda: jax.jit(lambda: of_key(key))()),
        ("key", lambda: jax.jit(scaled)(one)),
        ("path", lambda: jax.vmap(scaled)(np.ones(2, np.float32))),
        ("path", lambda: jax.grad(lambda scale: scaled(scale)[0].sum())(one)),
    ):
        with pytest.raises(
            ValueError, match=rf"(?s)^{name} = .*outside of jit.*vmap\(path\)\(keys\)"
        ):
            inside()


def test_exact_too_large_for_memory_is_refused_before_it_starts(monkeypatch):
    needed = SAMPLES * 2 * 12 * jnp.result_type(float).itemsize

    def never(*args):
        raise AssertionError("compiled")

    monkeypatch.setattr(memory, "free", lambda: needed - 1)
    with monkeypatch.context() as patch:
        patch.setattr(programs, "call", never)
        allowed = (
            r"^num_samples = 700: .*would take 0\.\d GB, and 0\.\d GB are free.*stream"
        )
        with pytest.raises(ValueError, match=allowed):
            sampling.sample(PATH, jax.random.key(3), SAMPLES, block_size=64)
    # which keeps little
    sampling.stream(PATH, jax.random.key(3), SAMPLES, block_size=64)
    for enough in (needed, None):
        monkeypatch.setattr(memory, "free", lambda enough=enough: enough)
        sampling.sample(PATH, jax.random.key(3), SAMPLES, block_size=64)


def test_oracle_free_memory(monkeypatch):
    """Some of what the machine has, not all; where nobody tells, nothing is refused."""
    page = os.sysconf("SC_PAGE_SIZE")
    unused, total = (
        page * os.sysconf(f"SC_{name}_PAGES") for name in ("AVPHYS", "PHYS")
    )
    assert unused / 2 < memory.free() < total

    def unknown(*args):
        raise OSError

    monkeypatch.setattr(pathlib.Path, "read_text", unknown)
    assert unused / 2 < memory.free() < total
    monkeypatch.setattr(os, "sysconf", unknown)
    assert memory.free() is None


PEAK = """
import sys
import jax
from lognorm_jax import ensembles, masks, paths, sampling, weights
path = paths.transport(ensembles.Ensemble((16,) * 51, weights.normal(), masks.relu()))
moments = sampling.stream(path, jax.random.key(0), int(sys.argv[1]))
assert moments.count[-1] + moments.dead[-1] == int(sys.argv[1])
# getrusage would count the parent's memory too
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


@pytest.mark.slow
def test_exact_stream_has_constant_memory():
    few, many = (
        int(
            subprocess.check_output(
                [sys.executable, "-c", PEAK, str(n)], env=os.environ
            )
        )
        for n in (10_000, 1_000_000)
    )
    assert many - few < 100, f"{few} MB for 10,000 paths, {many} MB for 1,000,000"


@pytest.mark.parametrize("num_samples", [1, 33, 700])
def test_invariance_in_lanes(monkeypatch, num_samples):
    path = paths.dense(ensembles.Ensemble((6, 4, 3), weights.normal(), masks.relu()))
    one_device = jax.devices()[:1]
    results = []
    for lanes in (1, 2, 3):
        asked = []
        monkeypatch.setattr(_lanes, "_count", lambda devices, lanes=lanes: lanes)
        results.append(
            sampling.sample(
                path,
                jax.random.key(7),
                num_samples,
                block_size=16,
                blocks_per_call=2,
                devices=one_device,
                progress=asked.append,
            )
        )
        assert sum(asked) == num_samples
    for other in results[1:]:
        np.testing.assert_array_equal(other.increment, results[0].increment)


def test_exact_lanes_use_the_cores_that_are_left(monkeypatch):
    monkeypatch.setattr(_lanes, "_cores", lambda: 4)
    devices = tuple(jax.devices())
    assert [_lanes._count(devices[:n]) for n in (1, 2, 3)] == [4, 2, 1]
    monkeypatch.setattr(_lanes, "_cores", lambda: 1)
    assert _lanes._count(devices[:1]) == 1


def test_error_in_a_lane_is_raised(monkeypatch):
    monkeypatch.setattr(_lanes, "_count", lambda devices: 2)

    def fails(_):
        raise RuntimeError("the path failed")

    def path(key):
        drawn = jax.random.normal(key, (2,))
        return jax.pure_callback(fails, drawn, drawn, vmap_method="sequential")

    with pytest.raises(Exception, match="the path failed"):
        sampling.sample(path, jax.random.key(0), 5, devices=jax.devices()[:1])
    assert not [t for t in threading.enumerate() if t.name.startswith("lognorm_jax")]


CLUSTER = """
import sys
import jax
import numpy as np
out, num_samples, devices, processes, index, address = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", int(devices))
if processes != "1":
    jax.distributed.initialize(address, int(processes), int(index))
from lognorm_jax import ensembles, masks, paths, runs, sampling, weights
assert jax.process_count() == int(processes)
assert len(jax.local_devices()) == int(devices)
assert len(jax.devices()) == int(devices) * int(processes)
key, done = jax.random.key(0), []
deep = ensembles.Ensemble((100,) * 101, weights.normal(), masks.relu())
transport = paths.transport(deep)
results = sampling.stream(
    transport, key, int(num_samples), block_size=1024, progress=done.append
)._asdict()
assert sum(done) == int(num_samples)
dense = paths.dense(ensembles.Ensemble((6, *(4,) * 12), weights.normal(), masks.relu()))
trace = sampling.sample(dense, key, 3000, block_size=64)
own = sampling.sample(dense, key, 3000, block_size=64, devices=jax.local_devices())
assert np.array_equal(trace.increment, own.increment)  # a process may also run alone
run = runs.open_run(out + "/run", {"widths": [6, 4]}, blocks_per_file=3)
for _ in range(2):  # computed, then read
    stored = sampling.sample(dense, key, 3000, block_size=64, run=run)
    assert np.array_equal(trace.increment, stored.increment)
np.savez(out + f"/{index}.npz", **results, increment=trace.increment)
# getrusage would count the parent's memory too
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def cluster(out, num_samples, devices, processes):
    """Run CLUSTER in processes; return what each wrote, and its peak memory in MB."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    out.mkdir()
    started = []
    for index in range(processes):
        arguments = map(str, (out, num_samples, devices, processes, index, address))
        command = [sys.executable, "-c", CLUSTER, *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    printed = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes
    results = [np.load(out / f"{index}.npz") for index in range(processes)]
    return results, [int(text.split()[-1]) for text in printed]


@pytest.mark.slow
def test_invariance_ten_million_paths_on_devices_and_processes(tmp_path):
    """In less than 1 GB, and bitwise the same on any devices and processes."""
    reference, first = None, {}
    for devices, processes in ((1, 1), (2, 1), (4, 1), (1, 2), (2, 2)):
        out = tmp_path / f"{devices}, {processes}"
        results, peaks = cluster(out, 10_000_000, devices, processes)
        reference = reference or results[0]
        for result in results:
            assert result["count"][-1] + result["dead"][-1] == 10_000_000
            assert all(
                np.array_equal(result[name], reference[name]) for name in reference
            )
        files = {path.name: path.read_bytes() for path in (out / "run").iterdir()}
        first = first or files
        assert files == first and len(files) == 18
        assert max(peaks) < 1000, f"{peaks} MB"
        print(f"{devices} devices, {processes} processes: {peaks} MB")


@pytest.mark.parametrize(
    "call",
    [
        lambda normal: jnp.linalg.eigvalsh(normal),
        lambda normal: jnp.linalg.qr(normal)[1],
        lambda normal: jnp.linalg.norm(normal, 2),
        lambda normal: jnp.linalg.solve(normal, normal[0]),
        lambda normal: jnp.linalg.cholesky(normal @ normal.T + jnp.eye(8)),
        lambda normal: jax.lax.map(jnp.linalg.det, normal[None]),
    ],
)
def test_invariance_paths_that_call_lapack_run_alone(call, key):
    """Two of them beside each other wait for each other's threads, for ever."""

    def path(key):
        return call(jax.random.normal(key, (8, 8)))

    jaxpr = jax.make_jaxpr(path)(key)
    devices = tuple(jax.devices())
    assert _lapack.called(jaxpr, devices) and len(devices) > 1
    with _lanes.opened(path, devices[:1], jaxpr) as lanes:
        assert lanes == [path]
    one = sampling.sample(path, key, 64, block_size=8, devices=devices[:1])
    several = sampling.sample(path, key, 64, block_size=8)
    np.testing.assert_array_equal(one, several)


def test_exact_other_paths_run_beside_each_other(key):
    jaxpr = jax.make_jaxpr(lambda key: jnp.sort(jax.random.normal(key, (8,))))(key)
    assert not _lapack.called(jaxpr, tuple(jax.devices()))
