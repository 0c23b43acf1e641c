"""Audits of models of PyTorch, where it is installed: against plain loops of torch, and
models of public families without weights.
"""

import itertools
import json

import numpy as np
import pytest

from lognorm_jax import audits, declarations, ready, testing

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.float32,
    # torch's own, of the forward derivatives that it traces
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
nn = torch.nn


class Mlp(nn.Module):
    def __init__(self, width=48, depth=6, gain=2**0.5):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)]
        )
        for layer in self.layers:
            nn.init.normal_(layer[0].weight, std=gain / width**0.5)
            nn.init.zeros_(layer[0].bias)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Masked(nn.Module):
    """With arguments besides the input, named ones among them."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])

    def forward(self, x, mask, scale=1.0):
        x = self.first(x) * mask
        for block in self.blocks:
            x = x + scale * torch.tanh(block(x))
        return x


DECLARED = {
    "*bias": declarations.constant(0),
    "*weight": declarations.fan_in(2**0.5),
}


def test_oracle_reports_are_those_of_a_plain_loop():
    """The same seeds, layer by layer with torch.func.jvp; the same verdict."""
    x = torch.randn(1, 48, generator=torch.Generator().manual_seed(3))
    kinds = ("jvp", "activations")
    found = audits.audit_torch(Mlp, x, num_seeds=120, kinds=kinds)
    loops = []
    for seed in range(120):
        torch.manual_seed(seed)
        model = Mlp()
        torch.manual_seed(seed + 1_000_003)
        h, u = x, torch.randn_like(x)
        ratios = []
        for layer in model.layers:
            before = u.square().sum(), h.square().sum()
            h, u = torch.func.jvp(layer, (h,), (u,))
            after = u.square().sum(), h.square().sum()
            ratios.append(
                [(a / b).log().item() for a, b in zip(after, before, strict=True)]
            )
        loops.append(ratios)
    expected = np.array(loops).transpose(2, 0, 1)
    for kind, values in zip(kinds, expected, strict=True):
        report = found.reports[kind]
        assert np.allclose(report.log_norms, values.sum(1), atol=1e-4)
        assert np.allclose(report.layers.mean.value, values.mean(0), atol=1e-4)
        outside = np.mean(np.abs(values.sum(1)) > 2 * np.log(10))
        assert (report.verdict == "stable") == (outside < 0.01)


def test_oracle_backward_reports_are_those_of_matrices():
    x = torch.randn(1, 48)
    found = audits.audit_torch(Mlp, x, num_seeds=3, kinds=("vjp",))
    for seed in range(3):
        torch.manual_seed(seed)
        model = Mlp()
        J = torch.autograd.functional.jacobian(model, x)[0, :, 0]
        torch.manual_seed(seed + 1_000_003)
        c = torch.randn(1, 48)
        log_norm = ((c @ J).square().sum() / c.square().sum()).log().item()
        assert np.isclose(found.reports["vjp"].log_norms[seed], log_norm, atol=1e-3)


def test_statistical_what_is_as_declared_has_no_finding():
    assert audits.audit_torch(Mlp, declaration=DECLARED).findings == ()
    pytorch = ready.READY["pytorch"]

    def defaults():
        return nn.Sequential(
            nn.Conv2d(3, 16, 3),
            nn.Conv2d(16, 16, 3, groups=4),
            nn.BatchNorm2d(16),
            nn.Linear(16, 50),
            nn.LayerNorm(50),
            nn.TransformerEncoderLayer(32, 4, 64),
            nn.ConvTranspose2d(12, 8, 3),
            nn.ConvTranspose2d(12, 8, 3, groups=4),
            nn.Bilinear(20, 30, 10),
            nn.EmbeddingBag(40, 8),
            nn.MultiheadAttention(16, 2, kdim=8, vdim=12),
            nn.LayerNorm((3, 8)),
            nn.LSTM(8, 9),
        )

    found = audits.audit_torch(defaults, declaration=pytorch)
    assert found.findings == ()


@pytest.mark.parametrize(
    ("gain", "words"),
    [(1.0, "gain of ReLU is missing"), ((2 / 3) ** 0.5, "√3 too small")],
)
def test_statistical_an_sd_that_is_off_has_its_likely_cause(gain, words):
    found = audits.audit_torch(lambda: Mlp(gain=gain), declaration=DECLARED)
    (finding,) = found.findings
    assert words in finding.cause and len(finding.parameters) == 6


def test_exact_copies_of_a_layer_are_found_and_ties_are_none():
    def copies():
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        return nn.TransformerEncoder(layer, 3)

    found = audits.audit_torch(copies, torch.randn(2, 5, 16), num_seeds=3)
    assert any("is equal to layers.0" in str(one) for one in found.findings)
    assert found.reports["jvp"].names == ("layers.0", "layers.1", "layers.2")

    def tied():
        first, last = nn.Embedding(20, 16), nn.Linear(16, 20, bias=False)
        last.weight = first.weight
        return nn.ModuleList([first, last])

    found = audits.audit_torch(tied, num_seeds=2)
    assert found.findings == () and found.parameters[0].tied == ("1.weight",)


def test_exact_frozen_parameters_may_be_the_same():
    def model():
        module = nn.Linear(9, 9)
        table = torch.sin(torch.arange(81.0)).reshape(9, 9)
        module.table = nn.Parameter(table, requires_grad=False)
        return module

    assert audits.audit_torch(model, num_seeds=2).findings == ()


def test_exact_arguments_of_a_forward():
    x, mask = torch.randn(2, 8), torch.ones(2, 8)
    by_place = audits.audit_torch(Masked, (x, mask), num_seeds=3, kinds=("jvp",))
    named = {"x": x, "mask": mask, "scale": 1.0}
    by_name = audits.audit_torch(Masked, named, num_seeds=3, kinds=("jvp",))
    totals = [one.reports["jvp"].log_norms for one in (by_place, by_name)]
    assert np.array_equal(*totals)
    some = audits.audit_torch(
        Masked, (x, mask), num_seeds=3, kinds=("jvp",), blocks=["blocks.0", "blocks.1"]
    )
    assert some.reports["jvp"].names == ("blocks.0", "blocks.1")
    with pytest.raises(ValueError, match="dictionary of named ones"):
        audits.audit_torch(Masked, x, num_seeds=2)


def test_exact_assertions_of_test_suites():
    x = torch.randn(1, 48)
    testing.assert_stable(Mlp, x, torch=True, num_seeds=4, kinds=("jvp",))
    testing.assert_initialised(Mlp, DECLARED, torch=True)
    with pytest.raises(AssertionError, match="vanishing"):
        small = lambda: Mlp(gain=0.5)  # noqa: E731
        testing.assert_stable(small, x, torch=True, num_seeds=4, kinds=("jvp",))


def test_exact_batches_are_normalised_by_their_own_statistics():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(
                [
                    nn.Sequential(nn.Linear(9, 9), nn.BatchNorm1d(9), nn.Dropout(0.5))
                    for _ in range(3)
                ]
            )

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    found = audits.audit_torch(Net, 100 * torch.randn(16, 9), num_seeds=3)
    # what comes out is of variance 1 in each batch, however large what goes in
    after = np.asarray(found.reports["activations"].layers.mean.value)
    assert abs(after[1]) < 1e-2 and abs(after[2]) < 1e-2 and after[0] < -8


def test_exact_what_overwrites_its_input_is_followed_as_it_is():
    """In-place activations; also as the first block."""

    def net(inplace):
        return lambda: nn.Sequential(
            nn.ReLU(inplace),
            nn.Linear(8, 8),
            nn.ReLU(inplace),
            nn.Linear(8, 8),
            nn.ReLU(inplace),
        )

    x = torch.randn(1, 8)
    for seeds in (2, 5):
        found = [
            audits.audit_torch(net(inplace), x, num_seeds=seeds)
            for inplace in (True, False)
        ]
        for kind in ("activations", "jvp", "vjp"):
            pairs = [np.asarray(one.reports[kind].layers.mean.value) for one in found]
            assert np.allclose(*pairs, atol=1e-6)


def test_exact_dead_networks_are_a_value():
    def narrow():
        layers = [nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())]
        layers += [nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(5)]
        return nn.Sequential(*layers)

    found = audits.audit_torch(narrow, torch.randn(1, 2), num_seeds=30)
    for report in found.reports.values():
        assert "vanishing" in report.verdict
    dead = np.isneginf(found.reports["vjp"].log_norms)
    assert np.array_equal(dead, np.isneginf(found.reports["jvp"].log_norms))
    assert 0 < dead.mean() < 1


def test_exact_coordinates_are_judged_in_both_directions():
    """Of 400 numbers to 4: norms per coordinate, forward and back."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(400, 40), nn.Linear(40, 4)])

        def forward(self, x):
            return self.layers[1](self.layers[0](x))

    found = audits.audit_torch(Net, torch.randn(1, 400), num_seeds=3).reports
    for kind, grown in (("jvp", 4 / 400), ("activations", 4 / 400), ("vjp", 400 / 4)):
        report = found[kind]
        assert np.allclose(report.judged, report.log_norms - np.log(grown))


def test_exact_blocks_are_in_the_order_of_use():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])

        def forward(self, x):
            for place in (2, 0, 3, 1):
                x = self.layers[place](x)
            return x

    found = audits.audit_torch(Net, torch.randn(1, 8), num_seeds=3, kinds=("jvp",))
    order = [f"layers.{place}" for place in (2, 0, 3, 1)]
    assert list(found.reports["jvp"].names) == order

    class Twice(Net):
        def forward(self, x):
            return self.layers[0](self.layers[0](self.layers[1](x)))

    with pytest.raises(ValueError, match=r"'layers.0' is used = 2"):
        audits.audit_torch(Twice, torch.randn(1, 8), num_seeds=3)


def test_exact_the_callers_random_numbers_are_not_touched():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    audits.audit_torch(
        Mlp, torch.randn(1, 48, generator=torch.Generator()), num_seeds=2
    )
    assert torch.equal(torch.rand(3), expected)


def test_exact_tokens_begin_after_the_embedding():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Embedding(9, 8), nn.Linear(8, 8)])

        def forward(self, tokens):
            return self.blocks[1](self.blocks[0](tokens))

    tokens = torch.randint(9, (1, 5))
    with pytest.raises(ValueError, match="begin with the block after"):
        audits.audit_torch(Net, tokens, num_seeds=2)
    found = audits.audit_torch(Net, tokens, num_seeds=2, blocks=["blocks.1"])
    assert found.reports["vjp"].names == ("blocks.1",)


@pytest.mark.parametrize(
    ("kind", "settings", "blocks"),
    [
        ("gpt2", {"n_layer": 3, "n_embd": 48, "n_head": 4, "vocab_size": 99}, "h.0"),
        (
            "llama",
            {
                "num_hidden_layers": 3,
                "hidden_size": 48,
                "vocab_size": 99,
                "intermediate_size": 96,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
            },
            "layers.0",
        ),
        (
            "bert",
            {
                "num_hidden_layers": 3,
                "hidden_size": 48,
                "vocab_size": 99,
                "intermediate_size": 96,
                "num_attention_heads": 4,
            },
            "encoder.layer.0",
        ),
        (
            "vit",
            {
                "num_hidden_layers": 3,
                "hidden_size": 48,
                "image_size": 32,
                "intermediate_size": 96,
                "num_attention_heads": 4,
            },
            "layers.0",
        ),
        (
            "resnet",
            {
                "embedding_size": 8,
                "hidden_sizes": [8, 16],
                "depths": [2, 2],
                "layer_type": "basic",
                "image_size": 32,
            },
            "encoder.stages.0.layers.0",
        ),
    ],
)
def test_statistical_families_are_as_they_declare(kind, settings, blocks):
    pytest.importorskip("transformers")
    if kind == "resnet":
        settings = {name: v for name, v in settings.items() if name != "image_size"}
    make, inputs, declared = ready.of_hub(kind, settings)
    if kind == "resnet":
        inputs = {"pixel_values": inputs["pixel_values"][..., :32, :32]}
    found = audits.audit_torch(make, inputs, declaration=declared, num_seeds=4)
    assert declared and found.findings == (), found.verdict_lines()
    assert found.reports["vjp"].names[0] == blocks
    json.dumps(found.as_dict(), allow_nan=False)


def test_statistical_residual_projections_that_are_not_scaled():
    """As a widely used implementation had it for models made from a configuration."""
    pytest.importorskip("transformers")
    settings = {"n_layer": 6, "n_embd": 48, "n_head": 4, "vocab_size": 99}
    make, _, declared = ready.of_hub("gpt2", settings)

    def unscaled():
        model = make()
        for name, weight in model.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(weight, std=0.02)
        return model

    found = audits.audit_torch(unscaled, declaration=declared, num_seeds=3)
    causes = {finding.cause for finding in found.findings}
    assert len(found.findings) == 2
    assert all("not scaled by 1/√(2L), L = 6" in cause for cause in causes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: audits.audit_torch(3), r"make = 3"),
        (lambda: audits.audit_torch(lambda: 3), r"make\(\) = 3.*module"),
        (lambda: audits.audit_torch(Mlp, num_seeds=1), r"num_seeds = 1"),
        (lambda: audits.audit_torch(lambda: 1 / 0), r"make\(\): ZeroDivisionError"),
        (
            lambda: audits.audit_torch(itertools.repeat(nn.Linear(2, 2)).__next__),
            r"make\(\) = .*fresh",
        ),
        (
            lambda: audits.audit_torch(Mlp, torch.full((1, 48), torch.nan)),
            r"blocks\[0\] \(layers.0\).*not finite",
        ),
        (
            lambda: audits.audit_torch(
                type("Still", (Mlp,), {"forward": torch.no_grad()(Mlp.forward)}),
                torch.ones(1, 48),
            ),
            r"no_grad",
        ),
        (
            lambda: audits.audit_torch(Mlp, torch.ones(1, 48), blocks=["layer.0"]),
            r"blocks\[0\] = 'layer.0'.*layers",
        ),
        (
            lambda: audits.audit_torch(lambda: nn.Linear(3, 3), torch.ones(1, 3)),
            r"blocks = None.*given",
        ),
        (lambda: ready.of_hub("gpt3", {}), r"model type = 'gpt3'.*gpt2"),
        (lambda: ready.of_hub("gpt2", {"n_layers": 3}), r"setting = 'n_layers'.*n_la"),
    ],
)
def test_exact_bad_input_is_refused(make, message):
    if "of_hub" in make.__code__.co_names:
        pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=message):
        make()
