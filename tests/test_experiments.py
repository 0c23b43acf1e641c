"""Every experiment computes, checks and draws; its checks fail on a wrong theory."""

import dataclasses
import functools
import importlib
import json
import types

import jax
import numpy as np
import pytest
import statistical
from scipy import stats

import experiments
from experiments import __main__ as runner
from experiments import (
    _check,
    _contenders,
    _figure,
    _job,
    _machine,
    exact_vs_limit,
    lognormal_law,
    martingale_paths,
    moment_growth,
    throughput,
    universality,
)
from lognorm_jax import (
    ensembles,
    exact,
    laws,
    martingales,
    masks,
    paths,
    sampling,
    summaries,
    weights,
)

pytestmark = pytest.mark.float32


def computed(experiment):
    return experiment.compute(_job.Job(jax.random.key(1), quick=True))


def changed(results, arrays):
    """Return nested results with other arrays in some places, named a/b/c."""
    return _job.nested(_job.flat(results) | arrays)


_log_variance = ensembles.log_variance
law_of = functools.cache(exact.law)


def times_beta(factor):
    """Return a theory of the limit with so many β for the variance, in place of 5β."""
    return lambda ensemble, direction=None: (
        factor / 5 * _log_variance(ensemble, direction)
    )


def ideal_log_norms(size, labels=None):
    """Samples that follow the exact law of architectures, without simulation."""
    rng, results = np.random.default_rng(0), {}
    for label in labels or lognormal_law.ARCHITECTURES:
        law = law_of(lognormal_law.ensemble(label))
        for model in lognormal_law.MODELS:
            results[f"{label}/{model}"] = law.quantile(rng.random(size))
    return _job.nested(results)


def verdicts(rows):
    cases = dict.fromkeys(row.case for row in rows)
    return {
        case: _check.overall([row for row in rows if row.case == case])
        for case in cases
    }


def failing(rows):
    return {(row.case, row.quantity) for row in rows if row.verdict == "fail"}


@pytest.mark.parametrize(
    ("size", "labels"),
    [
        (lognormal_law.NUM_SAMPLES, None),
        (lognormal_law.QUICK_SAMPLES, lognormal_law.QUICK_ARCHITECTURES),
    ],
)
def test_statistical_lognormal_law_sees_a_mean_wrong_by_5_percent_and_a_variance_by_4(
    size, labels, monkeypatch
):
    """Whether the paths are wrong or the theory, and with the counts of the quick form
    too.
    """
    monkeypatch.setattr(exact, "law", law_of)
    results = ideal_log_norms(size, labels)
    assert set(verdicts(lognormal_law.check(results)).values()) == {"pass"}
    for name, factor in (("mean", 0.95), ("variance", 1.04)):

        def wrong(ensemble, name=name, factor=factor):
            law = law_of(ensemble)
            return dataclasses.replace(law, **{name: factor * getattr(law, name)})

        with monkeypatch.context() as patch:
            patch.setattr(exact, "law", wrong)
            assert ("all, over exact", name) in failing(lognormal_law.check(results))
    wide = {}
    for label, models in results.items():
        law = law_of(lognormal_law.ensemble(label))
        wide[label] = {
            model: law.mean + 0.96**0.5 * (log_norms - law.mean)
            for model, log_norms in models.items()
        }
    assert ("all, over exact", "variance") in failing(lognormal_law.check(wide))


def test_statistical_lognormal_law_sees_one_wrong_architecture(monkeypatch):
    """A variance 22% low at 16 × 16 fails, in its own rows."""
    label = "64→16×16"
    some = {label: lognormal_law.ARCHITECTURES[label], "64→64×4": (64,) * 5}
    monkeypatch.setattr(lognormal_law, "ARCHITECTURES", some)
    results = ideal_log_norms(lognormal_law.NUM_SAMPLES)
    law = exact.law(lognormal_law.ensemble(label))
    for model in lognormal_law.MODELS:
        case = f"{label}, {model}"
        low = law.mean + 0.78**0.5 * (results[label][model] - law.mean)
        wrong = changed(results, {f"{label}/{model}": low})
        found = failing(lognormal_law.check(wrong))
        assert {(case, "variance"), (case, "KS to exact law")} <= found
        assert {other.split(",")[0] for other, _ in found} <= {label, "all"}


@pytest.mark.parametrize("beta", [4, 4.8])
def test_exact_lognormal_law_fails_with_another_multiple_of_beta(beta, monkeypatch):
    """For every architecture, and without any sampling error."""
    results = ideal_log_norms(lognormal_law.QUICK_SAMPLES)
    monkeypatch.setattr(exact, "law", law_of)
    monkeypatch.setattr(ensembles, "log_variance", times_beta(beta))
    found = {case for case, _ in failing(lognormal_law.check(results))}
    assert found == {f"{label}, limit law" for label in lognormal_law.ARCHITECTURES}


def test_exact_lognormal_law_figure(tmp_path):
    _figure.save(lognormal_law.draw(ideal_log_norms(4_096)), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_exact_architectures_span_beta():
    betas = [
        ensembles.beta(lognormal_law.ensemble(a)) for a in lognormal_law.ARCHITECTURES
    ]
    assert len(betas) >= 8 and min(betas) <= 0.1 and max(betas) >= 2
    assert any(
        len(set(widths[1:])) > 1 for widths in lognormal_law.ARCHITECTURES.values()
    )


@pytest.mark.slow
def test_statistical_runner_exit_codes(monkeypatch, tmp_path, capsys):
    """The real simulation: exit 0 with 5β, 1 with 4.8β; all files written, and in
    order.
    """
    monkeypatch.setattr(lognormal_law, "ARCHITECTURES", {"64→64×4": (64,) * 5})
    monkeypatch.setattr(lognormal_law, "QUICK_ARCHITECTURES", ("64→64×4",))
    monkeypatch.setattr(lognormal_law, "QUICK_SAMPLES", 4_096)
    monkeypatch.setattr(
        lognormal_law, "draw", lambda results: _figure.grid([["x"]], (1, 1))[0]
    )
    (tmp_path / "file").touch()
    assert runner.run("lognormal_law", quick=True, out=tmp_path / "file") == 2
    assert runner.run("lognormal_law", quick=True, out=tmp_path / "good") == 0
    monkeypatch.setattr(ensembles, "log_variance", times_beta(4.8))
    assert runner.run("lognormal_law", quick=True, out=tmp_path / "bad") == 1
    printed = capsys.readouterr().out
    assert (
        "lognormal_law: pass" in printed
        and "lognormal_law: fail" in printed
        and "✗" in printed
    )
    good, bad = tmp_path / "good", tmp_path / "bad"
    assert all(
        (good / f"lognormal_law.{suffix}").exists() for suffix in ("npz", "json", "png")
    )
    record = json.loads((good / "lognormal_law.json").read_text())
    assert (
        record["quick"]
        and record["seed"] == 0
        and record["versions"]["jax"] == jax.__version__
    )
    assert record["machine"] == _machine.record() and _machine.sentence() in printed
    stored = [dict(np.load(folder / "lognormal_law.npz")) for folder in (good, bad)]
    assert all(np.array_equal(stored[0][name], stored[1][name]) for name in stored[0])


def martingale_results():
    """Numbers as theory has them, with the errors of as many paths as the full form
    has.
    """
    rng, results = np.random.default_rng(0), {}
    depth, size = martingale_paths.DEPTH, martingale_paths.NUM_SAMPLES
    normal = martingale_paths.ensemble(weights.normal())
    trace = sampling.sample(paths.transport(normal), jax.random.key(0), size)
    parts = martingales.decompose(trace, normal)
    error = martingale_paths.second_order(trace, parts)[:, 1]
    squares = martingale_paths.squares(trace, parts)
    for law in martingale_paths.LAWS:
        for name, direction in martingale_paths.DIRECTIONS.items():
            case, ensemble = f"{law.name}, {name}", martingale_paths.ensemble(law)
            quartic = np.full(depth, 6 / martingale_paths.WIDTH)
            quartic[0] = np.sum(direction**4)
            constant = trace._replace(
                increment=trace.increment[:1], quartic=quartic[None]
            )
            own = martingales.decompose(constant, ensemble)
            theory = martingale_paths.second_order_theory(law, constant, own)
            variance = ensembles.predictable_variance(ensemble, quartic)
            errors = np.array([[2e-4], [0.005 * variance[0]]])
            first = np.array([[own.drift[0, 0]], [variance[0]]])
            results |= {
                f"{case}/martingale": parts.martingale[:6_000].astype(np.float32),
                f"{case}/bracket": own.bracket[0],
                f"{case}/drift": own.drift[0],
                f"{case}/increment": np.stack([own.drift[0], np.full(depth, 0.002)]),
                f"{case}/squares": squares,
                f"{case}/theory": theory,
                f"{case}/second order": np.stack(
                    [rng.normal(theory, error), error], axis=1
                ),
                f"{case}/first": np.concatenate(
                    [rng.normal(first, errors), errors], axis=1
                ),
            }
    return _job.nested(results)


# second order: it is only shown
BEYOND = ("laplace, coordinate", "n · (E ln‖Mu‖²/−½E⟨M⟩ − 1)")
SECOND_ORDER = ("n · (E ln‖Mu‖²/−½E⟨M⟩ − 1)", "n · (Var M/E⟨M⟩ − 1)")


def test_statistical_martingale_paths(monkeypatch, tmp_path):
    """Each second-order term wrong by a fifth is red in each case, and each other row
    can be.
    """
    results = martingale_results()
    assert _check.overall(martingale_paths.check(results)) == "pass"
    _figure.save(martingale_paths.draw(results), tmp_path / "figure.png")
    cases = list(results)
    for factor in (0, 0.8, 1.2):
        wrong = {f"{case}/theory": factor * results[case]["theory"] for case in cases}
        expected = {(case, term) for case in cases for term in SECOND_ORDER} - {BEYOND}
        assert failing(martingale_paths.check(changed(results, wrong))) == expected

    def found(case, **changes):
        wrong = {
            f"{case}/{part}": change(results[case][part])
            for part, change in changes.items()
        }
        return {
            quantity
            for _, quantity in failing(martingale_paths.check(changed(results, wrong)))
        }

    case, layers = "laplace, coordinate", np.arange(1, martingale_paths.DEPTH + 1)
    assert "Σ(Rᵢ − 1)²/E⟨M⟩" in found(case, squares=lambda x: np.add(x, [0.03, 0]))
    assert "E M" in found(case, martingale=lambda x: x + 0.005 * layers)
    assert "lag-1 corr" in found(
        case, martingale=lambda x: x + 0.5 * np.roll(x, 1, axis=-1)
    )
    assert "E ln R₁" in found(case, first=lambda x: x * [[1.2, 1], [1, 1]])
    rest = 5 / martingale_paths.WIDTH
    # of what the fourth moment adds for a coordinate vector
    for factor in (0, 0.8, 1.2):

        def shifted(x, c=factor):
            return np.array([x[0], [rest + c * (x[1, 0] - rest), x[1, 1]]])

        assert found(case, first=shifted) == {"Var R₁"}


@pytest.mark.slow
def test_statistical_martingale_paths_of_real_products(monkeypatch):
    """Simulated, not followed in law: the second-order terms of the full form are
    seen.
    """
    monkeypatch.setattr(
        martingale_paths, "LAWS", (weights.rademacher(), weights.laplace())
    )
    monkeypatch.setattr(
        martingale_paths, "QUICK_CASES", tuple(martingale_paths.cases())
    )
    monkeypatch.setattr(martingale_paths, "QUICK_SAMPLES", martingale_paths.NUM_SAMPLES)
    results = computed(martingale_paths)
    assert _check.overall(martingale_paths.check(results)) == "pass"
    cases = list(results)
    for factor in (0, 0.8, 1.2):
        wrong = {f"{case}/theory": factor * results[case]["theory"] for case in cases}
        expected = {(case, term) for case in cases for term in SECOND_ORDER} - {BEYOND}
        assert failing(martingale_paths.check(changed(results, wrong))) == expected


def follow(law, size, seed=0):
    """Return a fake ``sampling.sample``-like draw from a law, without simulation."""
    return law.quantile(np.random.default_rng(seed).random(size))


@pytest.mark.slow
def test_statistical_exact_vs_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(exact_vs_limit, "QUICK_RATIOS", (1.0,))
    monkeypatch.setattr(exact_vs_limit, "SAMPLED", (8,))
    draws = [
        exact.law(exact_vs_limit.ensemble(mask, 1.0, 8))
        for mask in exact_vs_limit.MASKS
    ]
    fake = iter([paths.Trace(follow(law, 30_000)[:, None], None) for law in draws])
    monkeypatch.setattr(sampling, "sample", lambda *args, **options: next(fake))
    monkeypatch.setattr(exact_vs_limit, "QUICK_SAMPLES", 30_000)
    results = computed(exact_vs_limit)
    rows = exact_vs_limit.check(results)
    assert _check.overall(rows) == "pass" and len(rows) == 12
    _figure.save(exact_vs_limit.draw(results), tmp_path / "figure.png")

    def fails(part, change):
        wrong = changed(results, {f"{case}/{part}": change(results[case][part])})
        return _check.overall(exact_vs_limit.check(wrong)) == "fail"

    case = "ReLU, depth 1 · n"
    width = np.array(exact_vs_limit.WIDTHS)[:, None]
    assert fails("distances", lambda d: d * [1.02, 1, 1])  # the constant
    # the theorem's rate
    assert fails("distances", lambda d: d * (width / 2048.0) ** 0.8)
    # Edgeworth no better than half
    assert fails("distances", lambda d: d * [1, 1, 4])
    assert fails("sampled", lambda d: d * [1, 0.5, 1, 1])


def test_exact_constant_of_the_distance():
    """n·KS → 0.92, 0.68 and 1.38 for ReLU, 0.183 for linear layers, by exact
    laws.
    """
    found = [exact_vs_limit.constant("ReLU", ratio) for ratio in (1, 0.2, 3)]
    assert found == pytest.approx([0.92, 0.68, 1.38], abs=0.011)
    assert exact_vs_limit.constant("linear", 1) == pytest.approx(0.183, abs=5e-4)


def test_statistical_moment_growth(monkeypatch, tmp_path):
    monkeypatch.setattr(moment_growth, "LAWS", (weights.normal(),))
    law = exact.law(moment_growth.ensemble(weights.normal(), *moment_growth.SIMULATED))
    fake = paths.Trace(follow(law, 20_000)[:, None], None)
    monkeypatch.setattr(sampling, "sample", lambda *args, **options: fake)
    monkeypatch.setattr(moment_growth, "QUICK_SAMPLES", 20_000)
    results = computed(moment_growth)
    assert _check.overall(moment_growth.check(results)) == "pass"
    _figure.save(moment_growth.draw(results), tmp_path / "figure.png")
    for name, factor in (("simulated", 1.1), ("by width", 0.9)):
        wrong = changed(results, {f"normal/{name}": factor * results["normal"][name]})
        assert verdicts(moment_growth.check(wrong))["normal"] == "fail"
    wrong = results | {"errors": 10 * results["errors"]}
    assert _check.overall(moment_growth.check(wrong)) == "fail"


def universality_results():
    """Numbers as theory has them, with the errors of as many paths as the full form
    has.
    """
    rng, results = np.random.default_rng(0), {"widths": np.array([10, 40])}
    errors = {}
    for width in (10, 40):
        path = paths.transport(universality.ensemble(weights.normal(), width))
        trace = sampling.sample(
            path, jax.random.key(width), universality.SAMPLES[width]
        )
        quartic = np.full(width // 2, 6 / width)
        quartic[0] = 1 / width
        found = universality.gaps(trace, universality.normal_law(width))
        errors[width] = 1.15 * found[:, 1]  # heavier weights have larger ones
        for law in universality.LAWS:
            size = universality.SAMPLES[80]
            follows = follow(universality.normal_law(width), size, width)
            theory = universality.predicted(law, width, quartic)
            values = theory + rng.normal(0, errors[width])
            pair = np.stack([values, errors[width]], axis=1)
            own = found if law is weights.normal() else pair
            results |= {f"{law.name}/{width}/log_norm": follows}
            results |= {
                f"{law.name}/{width}/quartic": quartic,
                f"{law.name}/{width}/gaps": own,
            }
    for law in universality.LAWS:
        for kind, kappa, error in (
            ("ratios", results[f"{law.name}/10/quartic"], 0.004),
            ("coordinate", np.ones(1), 0.003),
        ):
            variance = (5 + universality.excess(law, kappa)) / 10
            noise = np.full_like(variance, error)
            results[f"{law.name}/{kind}"] = np.array(
                [variance + rng.normal(0, noise), noise]
            )
    return _job.nested(results)


TERMS = (
    "mean gap, n = 40",
    "Σ Var ln Rᵢ gap, n = 40",
    "Σ Var Rᵢ, n = 10",
    "Var R₁, coordinate",
)


def wrong_by(factor, monkeypatch):
    """Make the terms of the fourth moment so many times what they are."""
    for name in ("predicted", "excess"):
        right = getattr(universality, name)
        wrong = functools.partial(lambda right, *args: factor * right(*args), right)
        monkeypatch.setattr(universality, name, wrong)


def test_statistical_universality(monkeypatch, tmp_path):
    """Every row of a law with a fourth moment of its own is red if its term is wrong by
    a fifth.
    """
    results = universality_results()
    rows = universality.check(results)
    assert _check.overall(rows) == "pass"
    judged = {(row.case, row.quantity) for row in rows if row.verdict}
    terms = {(law.name, term) for law in universality.LAWS[1:] for term in TERMS}
    assert terms <= judged
    assert not any(
        case != "normal" and "gap, n = 10" in quantity for case, quantity in judged
    )
    _figure.save(universality.draw(results), tmp_path / "figure.png")
    for factor in (0, 0.8, 1.2):
        with monkeypatch.context() as patch:
            wrong_by(factor, patch)
            assert terms <= failing(universality.check(results))
    gaps = results["normal"]["40"]["gaps"] + [[0.01, 0], [0.03, 0]]
    wide = changed(results, {"normal/40/gaps": gaps})
    assert {case for case, _ in failing(universality.check(wide))} == {"normal"}


@pytest.mark.slow
def test_statistical_universality_of_real_products(monkeypatch):
    """With the full form's counts: uniform weights, whose terms are small, and heavy
    ones.
    """
    monkeypatch.setattr(universality, "LAWS", (weights.uniform(), weights.laplace()))
    monkeypatch.setattr(universality, "QUICK_LAWS", universality.LAWS)
    samples = {width: universality.SAMPLES[width] for width in (10, 40)}
    monkeypatch.setattr(universality, "QUICK_COORDINATE", universality.COORDINATE)
    monkeypatch.setattr(universality, "QUICK_SAMPLES", samples)
    results = computed(universality)
    assert _check.overall(universality.check(results)) == "pass"
    terms = {(law.name, term) for law in universality.LAWS for term in TERMS}
    for factor in (0, 0.8, 1.2):
        with monkeypatch.context() as patch:
            wrong_by(factor, patch)
            assert terms <= failing(universality.check(results))


@pytest.mark.slow
def test_exact_throughput(monkeypatch, tmp_path):
    monkeypatch.setattr(throughput, "QUICK_SHAPES", ((12, 3),))
    monkeypatch.setattr(throughput, "QUICK_NETWORKS", ((16, 2),))
    monkeypatch.setattr(throughput, "QUICK_TRAININGS", ((8, 3),))
    monkeypatch.setattr(throughput, "QUICK_STEPPED", ((8, 4),))
    monkeypatch.setattr(throughput, "RAW", (10, 8))
    monkeypatch.setattr(throughput, "EXACT", {"tiny": ((4,) * 4, masks.relu())})
    monkeypatch.setattr(throughput, "QUICK_EXACT", ("tiny",))
    monkeypatch.setattr(throughput, "QUICK_SECONDS", 1e-4)
    results = computed(throughput)
    rows = throughput.check(results)
    # a speed has no verdict, but what is asked again must not compile
    judged = [row for row in rows if row.verdict]
    assert [row.quantity for row in judged] == ["programs again"]
    assert judged[0].verdict == "pass" and judged[0].measured == 0
    assert throughput._answer_rows("", (1.0, 4, 1.0, 1))[-1].verdict == "fail"
    assert all(np.isfinite(row.measured) for row in rows)
    _figure.save(throughput.draw(results), tmp_path / "figure.png")


def test_exact_runs_that_are_timed_keep_all_devices_busy(monkeypatch, key):
    """Each device gets four blocks or more, and as many as any other, however long a
    run takes.
    """
    # no PyTorch
    monkeypatch.setattr(_contenders.importlib.util, "find_spec", lambda name: None)
    ways = _contenders.products(8, 4, key) | _contenders.trainings(8, 3, key)
    blocks = {name: run.keywords.get("block_size") for name, (run, _) in ways.items()}
    assert [name for name, block in blocks.items() if block is None] == ["NumPy loop"]
    counts = {name: [] for name in ways}
    fakes = {
        name: (
            functools.partial(lambda name, count: counts[name].append(count), name),
            smallest,
        )
        for name, (_, smallest) in ways.items()
    }

    def timed(run):  # seven paths a second
        run()
        return max(seen[-1] for seen in counts.values() if seen) / 7

    monkeypatch.setattr(_contenders, "timed", timed)
    throughput.measure(fakes, 1e3, 2)
    devices = len(jax.devices())
    assert devices == 4
    for name, block in blocks.items():
        assert len(counts[name]) >= 4
        if block is not None:
            assert all(count % (devices * block) == 0 for count in counts[name])
            assert min(counts[name]) >= 4 * devices * block


@pytest.mark.parametrize("loop", ["NumPy", "PyTorch"])
def test_oracle_loops_of_the_benchmark_are_the_same_product(loop):
    if loop == "NumPy":
        log_norms = _contenders.numpy_loop(np.random.default_rng(0), 32, 8, 4000)
    else:
        pytest.importorskip("torch").manual_seed(0)
        log_norms = _contenders.torch_batches(32, 8, 4000, 300).astype(np.float64)
    mean, variance = (8 * c for c in exact.increment_cumulants(32, masks.relu(), 2))
    statistical.assert_near(*statistical.mean_and_error(log_norms), mean)
    statistical.assert_near(*statistical.variance_and_error(log_norms), variance)


@pytest.mark.parametrize("name", runner.names())
def test_exact_experiments_say_what_they_claim(name):
    experiment = importlib.import_module(f"experiments.{name}")
    assert (
        "Expected" in experiment.__doc__
        and f"python -m experiments {name}" in experiment.__doc__
    )
    assert all(
        callable(getattr(experiment, part)) for part in ("compute", "check", "draw")
    )


def test_exact_rows_and_table():
    good = _check.agree("a", "mean", 1.0, 0.1, 1.4)
    bad = _check.agree("a", "spread", 1.0, 0.1, 1.6)
    allowed = _check.agree("b", "spread", 1.0, 0.1, 1.6, 0.2)
    assert [row.verdict for row in (good, bad, allowed)] == ["pass", "fail", "pass"]
    assert _check.agree("a", "nan", np.nan, 0.1, 1.0).verdict == "fail"
    weak = laws.compare([0.0], laws.normal(0, 1))
    rows = [
        good,
        bad,
        allowed,
        _check.distance("c", "KS", weak),
        _check.show("d", "β", 0.5),
    ]
    assert _check.overall(rows) == "fail" and _check.overall(rows[2:]) == "underpowered"
    lines = _check.table(rows).split("\n")
    assert (
        lines[1].startswith("a ")
        and "1.00 ± 0.10 (1.40)" in lines[1]
        and "✗" in lines[1]
    )
    assert lines[1].endswith("fail") and lines[2].endswith("pass")
    assert lines[3].endswith("underpowered") and lines[4].endswith("0.5")


def test_exact_rows_are_judged_only_where_a_fifth_of_their_term_is_seen():
    """0.2 of the term must exceed 7 standard errors and the allowance; else no verdict,
    and a ~.
    """

    def verdict(error, *rest, measured=1.0, expected=1.0):
        return _check.resolve("a", "b", measured, error, expected, *rest).verdict

    assert [verdict(error) for error in (0.028, 0.029)] == ["pass", ""]
    assert [verdict(0.01, allowance) for allowance in (0.12, 0.14)] == ["pass", ""]
    assert [verdict(0.01, 0.0, without) for without in (0.6, 0.7)] == ["pass", ""]
    assert (
        verdict(0.028, expected=1.2) == "fail"
        and verdict(0.028, expected=0.8) == "fail"
    )
    assert verdict(0.028, expected=0.0) == "fail"  # a theory without the term
    assert (
        verdict(0.028, measured=0.0) == "fail"
        and verdict(0.3, measured=np.nan) == "fail"
    )
    shown = _check.resolve("a", "b", 1.0, 0.3, 1.4)
    assert (
        "1.00 ± 0.30 (1.40) ~" in _check.table([shown])
        and _check.overall([shown]) == "pass"
    )


def test_oracle_controlled_means():
    """A mean with controls is the intercept of a regression, whose error is what they
    leave.
    """
    rng = np.random.default_rng(0)
    controls = rng.normal(size=(2, 5_000))
    rest = 0.1 * rng.normal(size=5_000)
    value, error = _check.controlled(
        3 + controls[0] - 2 * controls[1] + rest, *controls
    )
    statistical.assert_near(value, error, 3.0)
    np.testing.assert_allclose(error, 0.1 / 5_000**0.5, rtol=0.1)
    plain = _check.controlled(rest)
    np.testing.assert_allclose(plain, summaries.estimate(rest).mean, rtol=1e-12)
    line = stats.linregress(controls[0], rest)
    expected = line.intercept, line.intercept_stderr
    np.testing.assert_allclose(
        _check.controlled(rest, controls[0]), expected, rtol=1e-3
    )


def test_exact_machine_is_told(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n"
    )
    assert _machine.processor(info) == "Some CPU @ 2 GHz"
    assert _machine.processor(tmp_path / "none")  # whatever else the platform tells
    known = _machine.record()
    assert known["cores"] >= 1 and known["devices"].startswith(
        f"{len(jax.devices())} × "
    )
    assert (
        known["processor"] in _machine.sentence()
        and jax.__version__ in _machine.sentence()
    )


def test_exact_rows_with_intervals():
    above = [
        _check.above("a", "b", 0.9, 0.8, 0.95, bound) for bound in (0.75, 0.85, None)
    ]
    assert [row.verdict for row in above] == ["pass", "fail", ""]
    between = [
        _check.between("a", "b", 0.1, *ends, 0.5)
        for ends in ((0, 0.2), (0, 0.6), (-0.6, 0))
    ]
    assert [row.verdict for row in between] == ["pass", "fail", "fail"]
    cells = [_check.table([row]).split("\n")[1] for row in (*above[1:], between[0])]
    assert "0.900 [0.800, 0.950] > 0.85 ✗" in cells[0] and cells[1].endswith("0.950]")
    assert "0.100 [0.000, 0.200] ± 0.5" in cells[2]


def test_invariance_an_experiment_goes_on_where_it_was_stopped(
    monkeypatch, tmp_path, capsys
):
    """And says so; blocks of other source are refused, with exit code 2, and not
    lost.
    """
    monkeypatch.setattr(lognormal_law, "ARCHITECTURES", {"64→8": (64, 8)})
    monkeypatch.setattr(lognormal_law, "QUICK_ARCHITECTURES", ("64→8",))
    monkeypatch.setattr(lognormal_law, "QUICK_SAMPLES", 4_096)
    monkeypatch.setattr(lognormal_law, "check", lambda results: [])
    monkeypatch.setattr(
        lognormal_law, "draw", lambda results: _figure.grid([["x"]], (1, 1))[0]
    )

    def start(folder):
        code = runner.run("lognormal_law", quick=True, out=tmp_path / folder)
        return code, capsys.readouterr()

    assert start("whole")[0] == 0
    real, calls = sampling.sample, []

    def stopped(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "sample", stopped)
        with pytest.raises(KeyboardInterrupt):
            start("run")
    blocks = tmp_path / "run/lognormal_law.blocks"
    kept = len(list(blocks.glob("*/blocks-*.npz")))
    assert kept == 1
    with monkeypatch.context() as patch:
        patch.setattr(_job, "source_digest", lambda: "other")
        with pytest.raises(SystemExit, match="2"):
            start("run")
    assert "differs in source" in capsys.readouterr().err
    code, printed = start("run")
    assert (
        code == 0
        and "Going on from" in printed.out
        and "finished blocks: 1." in printed.out
    )
    assert not blocks.exists()
    whole, run = (
        np.load(tmp_path / folder / "lognormal_law.npz") for folder in ("whole", "run")
    )
    assert set(whole) == set(run) and all(
        np.array_equal(whole[name], run[name]) for name in whole
    )


def test_exact_interrupted_by_the_keyboard(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    monkeypatch.setattr("sys.argv", ["experiments", "lognormal_law", "--no-cache"])
    with pytest.raises(SystemExit) as stopped:
        runner.main()
    assert stopped.value.code == 130 and "goes on" in capsys.readouterr().err


def test_exact_a_misspelt_experiment_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["experiments", "lognormal_la", "--quick"])
    with pytest.raises(SystemExit) as ended:
        runner.main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "lognormal_la: no such experiment. Did you mean lognormal_law?" in message


def test_exact_keys_of_a_job_go_by_name_and_not_by_order():
    job = _job.Job(jax.random.key(3))
    data = [jax.random.key_data(job.key(name)).tolist() for name in "aba"]
    assert data[0] == data[2] != data[1]


def test_exact_nested_results_are_stored_flat_and_read_back():
    results = {"relu": {"d = 2": {"mean": np.ones(3)}}, "beta": np.array(0.5)}
    arrays = _job.flat(results)
    assert set(arrays) == {"relu/d = 2/mean", "beta"}
    assert _job.flat(_job.nested(arrays)) == arrays
    assert (
        _job.nested(arrays)["relu"]["d = 2"]["mean"] is results["relu"]["d = 2"]["mean"]
    )
    with pytest.raises(ValueError, match="'d/n' may not have a /"):
        _job.flat({"d/n": {}})


@pytest.mark.parametrize("given", [None, "/elsewhere"])
def test_exact_programs_are_kept_where_jax_is_not_told_where(given, monkeypatch):
    told = {}
    config = types.SimpleNamespace(
        jax_compilation_cache_dir=given,
        update=lambda name, value: told.update({name: value}),
    )
    monkeypatch.setattr(runner, "jax", types.SimpleNamespace(config=config))
    runner.keep_programs()
    kept = {} if given else {"jax_compilation_cache_dir": str(runner.PROGRAMS)}
    assert kept.items() <= told.items() and (not given or not told)
    assert "lognorm_jax" in str(runner.PROGRAMS)


def test_statistical_the_smallest_experiment_runs_as_it_is_printed(
    monkeypatch, tmp_path, capsys
):
    """Saved beside the others under a name of its own, it passes; misnamed, it is
    refused.

    The shell makes the file before anything is written to it, and it is no experiment
    yet; nor does one without a docstring stop the others.
    """
    (tmp_path / "mine_for_a_test.py").touch()
    (tmp_path / "untold.py").write_text("import jax\n", encoding="utf-8")
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    assert "untold" in runner.names() and "mine_for_a_test" not in runner.names()
    assert "begin its file with a docstring" in runner._command("untold").__doc__
    monkeypatch.setattr("sys.argv", ["experiments", "new", "mine_for_a_test"])
    with pytest.raises(SystemExit) as ended:
        runner.main()
    source = capsys.readouterr().out
    assert ended.value.code == 0 and "experiments mine_for_a_test" in source
    (tmp_path / "mine_for_a_test.py").write_text(source, encoding="utf-8")
    assert runner.run("mine_for_a_test", quick=True, out=tmp_path) == 0
    assert "mine_for_a_test: pass" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["experiments", "new", "lognormal_law"])
    with pytest.raises(SystemExit) as ended:
        runner.main()
    assert ended.value.code == 2 and "a new Python name" in capsys.readouterr().err
