"""Numbers that others published: each has a source and a reason, none is let off; and
the page of papers names what there is.
"""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from test_experiments import computed

import lognorm_jax
from experiments import __main__ as runner
from experiments import _check, _figure, _job, _published, published_numbers
from lognorm_jax import kernels

pytestmark = pytest.mark.float32

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
NUMBERS = _published.NUMBERS


class Drawn(_job.Job):
    """A job whose samples are drawn with NumPy: the theory's own."""

    def sample(self, case, path, num_samples, *, engine=None, key=None):
        rng = np.random.default_rng(0)
        if case == "singular values":
            matrices = rng.normal(size=(2048, *[_published.GAP_WIDTH] * 2))
            return np.log(np.linalg.svd(matrices, compute_uv=False))
        if case == "angles":
            kept = rng.binomial(_published.ANGLE_WIDTH, 0.5, 16_384)
            both = rng.chisquare(np.stack([kept, kept - 1], axis=1))
            return np.log(both)[:, None]
        widths = _published.KERNEL_WIDTHS
        mean = kernels.mean(widths) * widths[0]
        spread = kernels.second_moment(widths) - 1
        return mean * spread * rng.gamma(1 / spread, size=4096)


@pytest.fixture(scope="module")
def results():
    return published_numbers.compute(Drawn(jax.random.key(1), quick=True))


def verdicts(results, place, ours):
    """Return the verdict of one number, were ours another."""
    changed = np.array(results["ours"])
    changed[place] = ours
    return published_numbers.check({"ours": changed})[place].verdict


def test_exact_numbers_have_sources_and_reasons():
    assert len(NUMBERS) >= 60
    assert len({number.name for number in NUMBERS}) == len(NUMBERS)
    for number in NUMBERS:
        assert number.source and number.where and number.reason
        assert number.value != 0 and number.allowance >= 0
        assert number.subject in published_numbers.SUBJECTS
    constants = sum(number.constant for number in NUMBERS)
    assert constants <= len(NUMBERS) / 2


def test_exact_what_is_told_is_what_there_is():
    off = [number.off.split(":")[0] for number in NUMBERS if number.off]
    assert (len(NUMBERS), len(off)) == (64, 9)
    assert sum(reason.startswith("slip") for reason in off) == 3
    assert "holds 64 numbers" in PAGE and "Fifty-five agree" in PAGE


@pytest.mark.slow
def test_statistical_published_numbers():
    rows = published_numbers.check(computed(published_numbers))
    assert _check.overall(rows) == "pass"


def test_oracle_published_numbers_are_ours(results, tmp_path):
    rows = published_numbers.check(results)
    assert _check.overall(rows) == "pass"
    judged = [row.verdict == "pass" for row in rows]
    assert judged == [not number.off for number in NUMBERS]
    file = tmp_path / "figure.png"
    _figure.save(published_numbers.draw(results), file)
    assert file.stat().st_size > 10_000


@pytest.mark.parametrize("place", range(len(NUMBERS)), ids=lambda i: NUMBERS[i].name)
def test_exact_an_error_of_a_fifth_is_seen(results, place):
    number, (ours, error) = NUMBERS[place], results["ours"][place]
    broken = [verdicts(results, place, (f * ours, f * error)) for f in (0.8, 1.2)]
    assert broken == ([""] * 2 if number.off else ["fail"] * 2)
    assert number.off or verdicts(results, place, (np.nan, 0.0)) == "fail"


def test_oracle_angles_of_few_units_by_their_law():
    """The fall of ln sin² of small angles, drawn with plain matrices."""
    rng = np.random.default_rng(0)
    n, count = 12, 20_000
    images = rng.normal(size=(count, n, 2)) * (rng.random((count, n, 1)) < 0.5)
    grams = images.swapaxes(1, 2) @ images
    alive = np.linalg.det(grams) > 1e-9
    area, first = np.linalg.det(grams)[alive], grams[alive, 0, 0]
    change = np.log(area / first**2)
    error = change.std() / len(change) ** 0.5
    assert abs(change.mean() + _published._angle_fall(n)) < 5 * error


def test_oracle_critical_points_by_recursion():
    """At the critical gain and bias the variance of a wide network stays."""
    c_b, c_w = _published._critical(jax.nn.silu)
    z = np.random.default_rng(0).normal(size=400_000)
    for start, moved in ((14.32, 0.0), (20.0, 1.0)):
        silu = start**0.5 * z / (1 + np.exp(-(start**0.5) * z))
        after = c_b + c_w * np.mean(silu**2)
        assert abs(after - start) < 0.2 + moved


def tokens():
    return sorted(set(re.findall(r"`([^`\n]+)`", PAGE)) - {"lognorm_jax"})


def test_exact_what_the_page_of_papers_names_exists():
    named = tokens()
    assert len(named) > 60
    for token in named:
        if token.startswith("tests/"):
            assert (ROOT / token).is_file(), token
        elif token.startswith("python -m experiments"):
            continue
        elif "." in token:
            module, name = token.split(".")
            assert name in getattr(lognorm_jax, module).__all__, token
        else:
            assert token in runner.names(), token


def test_exact_the_page_of_papers_is_a_table_of_few_columns():
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} <= {3, 4, 5}
