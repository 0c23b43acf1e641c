"""The command line through its entry point: every verb, and mistakes of people."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lognorm_jax import __main__ as command_line
from lognorm_jax import ensembles, exact, masks, weights

pytestmark = pytest.mark.float32

MODEL = """
import jax
import numpy as np
from flax import nnx


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(32, 32, rngs=rngs) for _ in range(3)])


def make(key):
    return Net(nnx.Rngs(key))


def same(key):
    return Net(nnx.Rngs(0))


def broken(key):
    return 1 / 0


def nothing(key):
    return None


number = 3
"""


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Return args -> (exit code, what was printed, what was said of errors)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_model.py").write_text(MODEL, encoding="utf-8")
    (tmp_path / "leaving.py").write_text("raise SystemExit(0)", encoding="utf-8")
    sys.modules.pop("a_model", None)

    def call(line):
        try:
            code = command_line.main(line.split())
        except SystemExit as stop:
            code = stop.code
        done = capsys.readouterr()
        return code, done.out, done.err

    return call


def test_oracle_law_prints_what_the_library_says(run):
    code, out, _ = run("law 20-30x4 --json --fan out")
    assert code == 0
    limit, found = json.loads(out)
    law = exact.law(
        ensembles.Ensemble((20, *(30,) * 4), weights.normal(), masks.relu())
    )
    assert limit["source"] == "limit law" and np.isclose(limit["variance"], 5 * 4 / 30)
    assert found["mean"] == law.mean and found["variance"] == law.variance
    assert found["quantiles"]["0.05"] == float(law.quantile(0.05))
    assert found["beta"] == 4 / 30 and found["dead"] == law.atom


def test_exact_law_of_several_shapes_is_one_table_and_one_figure(run, tmp_path):
    code, out, _ = run("law 8-9x3 4x5 --plot laws.png")
    assert code == 0 and (tmp_path / "laws.png").stat().st_size > 10_000
    assert out.count("exact law") == out.count("limit law") == 2
    assert "relu, normal weights, fan in" in out


def test_exact_law_of_another_gain_is_the_exact_one_shifted(run):
    usual = json.loads(run("law 8-9x3 --json")[1])[-1]
    other = json.loads(run("law 8-9x3 --gain 2 --json")[1])[-1]
    shift = 3 * np.log(2**2 / 2)
    assert other["source"] == usual["source"] == "exact law"
    assert np.isclose(other["mean"], usual["mean"] + shift)
    low = usual["quantiles"]["0.05"], other["quantiles"]["0.05"]
    assert np.isclose(low[1], low[0] + shift)


def test_statistical_sampled_laws_are_over_inputs_too(run):
    """Other seeds, other inputs: means agree within their standard errors."""
    found = [
        json.loads(
            run(f"law 8x6 --activation tanh --samples 4000 --seed {seed} --json")[1]
        )[-1]
        for seed in (0, 1)
    ]
    error = np.hypot(found[0]["mean_error"], found[1]["mean_error"])
    assert abs(found[0]["mean"] - found[1]["mean"]) < 5 * error


def test_statistical_law_samples_where_theory_is_not_exact(run):
    code, out, _ = run("law 12x6 --activation tanh --samples 200 --json")
    (found,) = json.loads(out)
    assert code == 0 and found["source"] == "200 samples"
    assert found["variance_error"] > 0 and found["mean_error"] > 0
    code, out, _ = run("law 12x6 --residual vanilla --samples 200 --plot a.svg")
    assert code == 0 and "limit law" in out and "200 samples" in out and " ± " in out


@pytest.mark.parametrize(
    "line",
    [
        "law 12x6 --weights rademacher --samples 100",
        "law 12x6 --weights orthogonal",
        "law 12x6-1 --head linear --activation leaky:0.3",
        "law 12x6 --gain 1.3 --bias-scale 0.1 --samples 100",
        "law 1x3",
    ],
)
def test_exact_law_takes_what_it_says(run, line):
    code, out, err = run(line)
    assert code == 0 and "x" in out.splitlines()[1]
    assert not err and "nan" not in out


def test_exact_law_may_be_of_dead_networks(run):
    code, out, _ = run("law 1x30 --json")
    found = json.loads(out)[-1]
    assert code == 0 and found["dead"] > 0.999
    assert found["quantiles"]["0.5"] is None


def test_exact_advise_gains_and_defaults(run):
    code, out, _ = run("advise --width 32 --depth 10")
    assert code == 0 and "deepest stable at width 32" in out
    code, out, _ = run("advise --width 32 --depth 10 --json")
    assert json.loads(out)["width"] == 32
    code, out, _ = run("gains tanh gelu --json")
    tanh, gelu = json.loads(out)
    assert round(tanh["backward"], 4) == 1.4674 and round(gelu["forward"], 4) == 1.5335
    code, out, _ = run("gains --width 100")
    assert code == 0 and re.search(r"relu +1\.4142 +1\.4142 +1\.4323", out)
    code, out, _ = run("defaults --activation tanh")
    assert code == 0 and "Flax" in out and "PyTorch" in out
    code, out, _ = run("defaults --json")
    assert json.loads(out)[0]["depth"] == 6


def test_exact_audit_of_a_module_of_ones_own(run, tmp_path):
    code, out, _ = run("audit a_model:make --declare flax")
    assert code == 0 and "No finding" in out
    code, out, _ = run("audit a_model:same --declare flax")
    assert code == 1 and "the same for all seeds" in out
    code, out, _ = run(
        "audit a_model:make --input 32 --blocks layers[0] layers[1] layers[2] --json "
        "--html a.html --plot a.png --require-stable"
    )
    told = json.loads(out)
    assert code == 0 and told["stable"] and len(told["reports"]["jvp"]["layers"]) == 3
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert "backward, gradients" in (tmp_path / "a.html").read_text(encoding="utf-8")
    declared = tmp_path / "declared.json"
    declared.write_text('{"*kernel": "normal:1"}', encoding="utf-8")
    code, out, _ = run("audit a_model:make --declare declared.json --seeds 3")
    assert code == 1 and "declared normal, sd 1" in out


def test_exact_audit_with_activations_between_blocks(run):
    blocks = " ".join(f"layers[{i}]+relu" for i in range(3))
    code, out, _ = run(f"audit a_model:make --input 32 --blocks {blocks} --json")
    (first, *_) = json.loads(out)["reports"]["jvp"]["layers"]
    assert code == 0 and first["name"].startswith("0: layers[0]")
    # half of the units are off, and Flax's weights know nothing of it
    assert abs(first["mean"] + np.log(2)) < 0.2
    assert run("--version")[1].startswith("lognorm_jax ")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch
def test_exact_audit_of_model_types(run):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    line = "audit hf:gpt2 --seeds 3"
    settings = ("n_layer=2", "n_embd=32", "n_head=4", "vocab_size=50")
    code, out, _ = run(" ".join([line, *(f"--set {one}" for one in settings)]))
    assert code == 0 and "h.*.attn.c_proj.weight (2)" in out and "(1/√" not in out
    assert "backward, gradients: " in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("law", r"shapes = \(\): must be at least one"),
        ("law 64-1o0", r"\n  64-1o0\n      \^"),
        ("law 3-3 --activation relo", r"Did you mean 'relu'"),
        ("law 3-3 --plot nowhere/a.png", r"plot = 'nowhere/a.png'"),
        ("law 3-3 --plot a.nopng", r"ends in one of"),
        ("law 3-4 --residual vanilla", r"equal widths"),
        ("law 3-3 --samples 3", r"samples = 3"),
        ("law 3-3 --factor 0.5", r"factor = 0.5"),
        ("advise --width 0 --depth 3", r"width = 0"),
        ("advise --width 3", r"Missing"),
        ("gains ten", r"Did you mean 'tanh'|one of relu"),
        ("audit a_model", r"MODULE:FUNCTION"),
        ("audit nothing:make", r"'nothing' cannot be imported"),
        ("audit a_model:mak", r"Did you mean 'make'"),
        ("audit a_model:number", r"subject = 3"),
        ("audit a_model:make --declare keras", r"declare = 'keras'"),
        ("audit a_model:make --input 3y", r"input = '3y'"),
        ("audit a_model:make --tokens 3", r"tokens = 3"),
        ("audit a_model:make --set a=3", r"set = "),
        ("audit a_model:make --blocks layers[0]", r"blocks = .*--input"),
        (
            "audit a_model:make --input 32 --blocks layers[0]+relo",
            r"Did you mean 'relu'",
        ),
        ("audit a_model:make --require-stable", r"require_stable = .*--input"),
        ("audit a_model:make --plot a.png", r"plot = .*--input"),
        ("audit a_model:make --input 99999999999999999999x8", r"input = "),
        ("audit a_model:broken", r"model\(key\): ZeroDivisionError"),
        ("audit a_model:nothing", r"no parameters"),
        ("audit leaving:make", r"'leaving' cannot be imported"),
        ("audit a_model:make --html .", r"html = "),
        ("law 3-3 --plot .", r"plot = "),
        ("law 3-3 --gain -1", r"gain = -1"),
        ("law 3x3 --residual balanced --gain 2", r"gain = 2"),
        ("law 3-3 --seed -1", r"seed = -1"),
        ("advise --width 3 --depth 1000000000", r"depth = 1000000000"),
        ("audit a_model:make --html nowhere/a.html", r"html = "),
        ("lew 3-4", r"lew"),
    ],
)
def test_exact_mistakes_end_with_2_and_say_what_to_do(run, line, words):
    code, out, err = run(line)
    assert code == 2 and re.search(words, out + err)
    assert "Traceback" not in out + err


def test_exact_extras_that_are_missing_are_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run("audit hf:gpt2")
    assert code == 2 and 'pip install "lognorm_jax[torch]"' in err
    code, _, err = run("audit torch:a_model:make --input 3")
    assert code == 2 and 'pip install "lognorm_jax[torch]"' in err
    monkeypatch.setitem(sys.modules, "tyro", None)
    code, _, err = run("law 3-3")
    assert code == 2 and 'pip install "lognorm_jax[cli]"' in err


def test_exact_both_ways_to_call_it():
    """As a module and as the script, in a process of its own."""
    script = Path(sys.executable).parent / "lognorm"
    for command in ([sys.executable, "-m", "lognorm_jax"], [str(script)]):
        done = subprocess.run(
            [*command, "law", "5-6x3"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and "exact law" in done.stdout
    done = subprocess.run([*command, "law", "5"], capture_output=True, check=False)
    assert done.returncode == 2
