"""`attribute` is Captum, within a bound on memory, for inputs of every shape."""

import contextlib

import captum.attr
import pytest
import torch
from captum_methods import DRAWING, METHODS, chunking, options, raw
from networks import FunctionalReLU, TwoInputs, cnn, mlp, plain_cnn
from refusals import refused
from torch import nn
from witness import digest, module_state, rng_state

from lit_xai.attribution.attribution import rehearse
from lit_xai.attribution.methods import attribute_parameters
from lit_xai.functional import attribute, fork_rng


@pytest.fixture
def x():
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0)) * 3


TARGET = torch.tensor([0, 2, 1, 2])


def target_of(name):
    return TARGET if "target" in attribute_parameters(getattr(captum.attr, name)) else None


@pytest.mark.parametrize("name", METHODS)
def test_equals_captum_bit_for_bit_with_the_same_chunking(name, x):
    given = options(name, layer="3")
    found = attribute(plain_cnn(), x, target=target_of(name), **given)
    same = given | {"attribute_args": given["attribute_args"] | chunking(name, len(x))}
    expected = raw(name, plain_cnn(), x, TARGET, same)
    assert expected.abs().max() > 0
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", METHODS)
def test_equals_captum_with_its_own_defaults(name, x):
    given = options(name, layer="3")
    found = attribute(plain_cnn(), x, target=target_of(name), **given)
    expected = raw(name, plain_cnn(), x, TARGET, given)
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


TUNNELLED = [name for name in METHODS if name != "LayerLRP" and "DeepLiftShap" not in name]


@pytest.mark.parametrize("name", TUNNELLED)
def test_equals_captum_in_a_noise_tunnel(name, x):
    noise = {"nt_samples": 3, "stdevs": 0.2, "nt_type": "smoothgrad_sq"}
    given = options(name, layer="3")
    found = attribute(plain_cnn(), x, target=target_of(name), noise_tunnel=noise, **given)
    same = given | {"attribute_args": given["attribute_args"] | chunking(name, len(x))}
    tunnel = noise | {"draw_baseline_from_distrib": "GradientShap" in name}
    expected = raw(name, plain_cnn(), x, TARGET, same, tunnel)
    assert expected.abs().max() > 0
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["LayerLRP", "DeepLiftShap", "LayerDeepLiftShap", "NeuronDeepLiftShap"])
def test_what_a_noise_tunnel_cannot_wrap_is_refused(name, x):
    with pytest.raises(ValueError, match=f"^noise_tunnel: Captum's NoiseTunnel .*{name}"):
        attribute(plain_cnn(), x, target=target_of(name), noise_tunnel={}, **options(name, layer="3"))


def test_an_empty_noise_tunnel_is_one_with_captums_defaults(x):
    found = attribute(mlp(), x[:, 0, 0, :5], method="Saliency", target=0, noise_tunnel={})
    assert not torch.equal(found, attribute(mlp(), x[:, 0, 0, :5], method="Saliency", target=0))


def linear():
    """All methods agree on it whatever they draw."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(144, 3))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "FeaturePermutation"])
def test_pieces_of_any_size_give_the_whole(name, x):
    given = options(name)
    draws = name in DRAWING or name in ("KernelShap", "Lime", "ShapleyValueSampling")
    network = linear() if draws else cnn()
    if name in DRAWING:
        given["baselines"] = torch.zeros(2, 2, 6, 6)
    tolerance = 1e-4 if name in ("KernelShap", "Lime") else 1e-6  # they solve a regression
    whole = attribute(network, x, target=target_of(name), **given)
    for size in (1, 3):
        found = attribute(network, x, target=target_of(name), internal_batch_size=size, **given)
        assert (found - whole).abs().max() <= tolerance * whole.abs().max()


def test_feature_permutation_is_not_cut(x):
    given = options("FeaturePermutation") | {"target": TARGET}
    whole = attribute(plain_cnn(), x, **given)
    torch.testing.assert_close(attribute(plain_cnn(), x, internal_batch_size=1, **given), whole, atol=1e-6, rtol=0)


BOUNDED = {
    "IntegratedGradients": {"attribute_args": {"n_steps": 7}},
    "GradientShap": {"attribute_args": {"n_samples": 6}},
    "NoiseTunnel(IntegratedGradients)": {"attribute_args": {"n_steps": 7}, "noise_tunnel": {"nt_samples": 5}},
    "NoiseTunnel(Saliency)": {"noise_tunnel": {"nt_samples": 5}},
    "NoiseTunnel(Occlusion)": {"attribute_args": {"sliding_window_shapes": [1]}, "noise_tunnel": {"nt_samples": 5}},
    "NoiseTunnel(DeepLift)": {"noise_tunnel": {"nt_samples": 5}},
    "NoiseTunnel(LayerGradientShap)": {
        "layer": "0",
        "attribute_args": {"n_samples": 4},
        "noise_tunnel": {"nt_samples": 5},
    },
    "Occlusion": {"attribute_args": {"sliding_window_shapes": [1]}},
    "FeatureAblation": {},
    "FeaturePermutation": {},
    "KernelShap": {"attribute_args": {"n_samples": 50}},
    "ShapleyValueSampling": {"attribute_args": {"n_samples": 6}},
    "DeepLift": {},
    "DeepLiftShap": {},
    "LayerDeepLift": {"layer": "0"},
    "LayerConductance": {"layer": "0", "attribute_args": {"n_steps": 7}},
    "LayerIntegratedGradients": {"layer": "0", "attribute_args": {"n_steps": 7}},
    "LayerGradientShap": {"layer": "0", "attribute_args": {"n_samples": 4}},
    "NeuronGradientShap": {"layer": "0", "attribute_args": {"n_samples": 4, "neuron_selector": 0}},
    "NeuronIntegratedGradients": {"layer": "0", "attribute_args": {"n_steps": 7, "neuron_selector": 0}},
    "GuidedBackprop": {},
    "LRP": {},
}


@pytest.mark.filterwarnings("ignore:.*raise n_steps")
@pytest.mark.parametrize("n", [1, 3, 8, 9, 17])
@pytest.mark.parametrize("case", BOUNDED)
def test_memory_is_bounded(case, n):
    """No pass holds more samples than the bound, or four times as many where none is kept for a backward pass."""
    name = case.removeprefix("NoiseTunnel(").removesuffix(")")
    if (name, n) == ("FeaturePermutation", 1):
        pytest.skip("needs two samples")
    network, largest = mlp(), {True: 0, False: 0}

    def record(module, args):
        largest[torch.is_grad_enabled()] = max(largest[torch.is_grad_enabled()], len(args[0]))

    network.register_forward_pre_hook(record)
    samples = torch.randn(n, 5, generator=torch.Generator().manual_seed(n))
    target = 1 if target_of(name) is not None else None
    attribute(network, samples, method=name, target=target, internal_batch_size=8, **BOUNDED[case])
    assert largest[True] <= 8
    assert largest[False] <= 32
    assert max(largest.values()) >= min(n, 8)


def test_methods_that_take_samples_singly_fill_the_bound():
    """KernelShap perturbs one sample at a time, but runs as many of its perturbations at once as there is room for."""
    network, sizes = mlp(), []
    network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    given = {"method": "KernelShap", "target": 0, "attribute_args": {"n_samples": 32}}
    attribute(network, torch.randn(7, 5), internal_batch_size=8, **given)
    assert sizes.count(8) == 7 * 4


@pytest.mark.parametrize("n", [1, 5, 7])
@pytest.mark.parametrize("nt_samples", [1, 4, 5])
@pytest.mark.parametrize("name", ["IntegratedGradients", "GradientShap"])
def test_delta_is_each_samples_own(name, nt_samples, n):
    """In a noise tunnel too, whose portions come one after the other. With next to no noise the gap is known."""
    network, samples = mlp(), torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) * 3
    found, delta = attribute(
        network,
        samples,
        method=name,
        target=1,
        baselines=torch.full((1, 5), -1.0),
        attribute_args={"n_steps": 3} if name == "IntegratedGradients" else {"n_samples": 3},
        noise_tunnel={"nt_samples": nt_samples, "stdevs": 1e-5},
        internal_batch_size=4,
        return_convergence_delta=True,
    )
    with torch.no_grad():
        gap = (network(samples) - network(torch.full((1, 5), -1.0)))[:, 1]
    torch.testing.assert_close(delta, found.sum(1) - gap, atol=1e-3, rtol=0)
    assert delta.abs().max() > 2e-3


@pytest.mark.parametrize("name", METHODS)
def test_delta_of_every_method(name, x):
    method = getattr(captum.attr, name)
    found = attribute(plain_cnn(), x, target=target_of(name), return_convergence_delta=True, **options(name, layer="3"))
    if "return_convergence_delta" not in attribute_parameters(method):
        assert found[1] is None
    else:
        assert found[1].shape == (4,)
        assert not found[1].requires_grad
        assert torch.equal(found[0], attribute(plain_cnn(), x, target=target_of(name), **options(name, layer="3")))


def test_deltas_close_the_gap(x):
    """The delta is the difference to the output, computed here without Captum."""
    network = cnn()
    for name in ("IntegratedGradients", "DeepLift"):
        found, delta = attribute(network, x, method=name, target=TARGET, return_convergence_delta=True)
        with torch.no_grad():
            gap = (network(x) - network(torch.zeros(1, 2, 6, 6))).gather(1, TARGET[:, None])[:, 0]
        torch.testing.assert_close(found.flatten(1).sum(1) - gap, delta, atol=1e-5, rtol=0)


def test_seed(x):
    given = {"method": "GradientShap", "target": 0, "attribute_args": {"stdevs": 0.5}}
    first = attribute(cnn(), x, **given)
    assert torch.equal(first, attribute(cnn(), x, **given))
    assert not torch.equal(first, attribute(cnn(), x, seed=1, **given))
    network = cnn()
    with fork_rng(0):
        assert torch.equal(first, attribute(network, x, seed=None, **given))


class TestInputs:
    """Every way to call a network."""

    @pytest.fixture
    def parts(self):
        torch.manual_seed(0)
        return {"left": torch.randn(6, 5), "right": torch.randn(6, 4), "group": torch.arange(6)}

    @staticmethod
    def expected(parts, scale=1.0, mode="sum"):
        explainer = captum.attr.IntegratedGradients(
            lambda left, right, group: TwoInputs()(left, right, group, scale, mode)
        )
        return explainer.attribute(
            (parts["left"], parts["right"]), target=1, additional_forward_args=parts["group"], internal_batch_size=64
        )

    @pytest.mark.parametrize("size", [64, 4])
    def test_dict(self, parts, size):
        found = attribute(TwoInputs(), parts, target=1, internal_batch_size=size)
        assert list(found) == ["left", "right"]
        left, right = self.expected(parts)
        torch.testing.assert_close(found["left"], left, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(found["right"], right, atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("size", [64, 4])
    def test_tuple(self, parts, size):
        found = attribute(TwoInputs(), tuple(parts.values()), target=1, internal_batch_size=size)
        assert found[2] is None
        torch.testing.assert_close(found[:2], self.expected(parts), atol=1e-6, rtol=1e-5)

    def test_list_is_a_tuple(self, parts):
        found = attribute(TwoInputs(), list(parts.values()), target=1)
        assert torch.equal(found[0], attribute(TwoInputs(), tuple(parts.values()), target=1)[0])

    def test_constants_of_any_type_are_passed_on(self, parts):
        """A scalar tensor, a string, a number and None have no row per sample."""
        inputs = parts | {"scale": torch.tensor(2.0), "mode": "half"}
        found = attribute(TwoInputs(), inputs, target=1, internal_batch_size=4)
        assert list(found) == ["left", "right"]
        torch.testing.assert_close(
            (found["left"], found["right"]), self.expected(parts, 2.0, "half"), atol=1e-6, rtol=1e-5
        )
        plain = {"left": parts["left"], "right": parts["right"], "group": None, "scale": 1, "mode": "sum"}
        assert list(attribute(TwoInputs(), plain, target=1)) == ["left", "right"]

    def test_one_argument_that_is_a_dict(self, parts):
        class OneDict(nn.Module):
            def __init__(self):
                super().__init__()
                self.network = TwoInputs()

            def forward(self, batch):
                return self.network(batch["left"], batch["right"], batch["group"])

        found = attribute(OneDict(), parts, target=1)
        assert torch.equal(found["right"], attribute(TwoInputs(), parts, target=1)["right"])

    def test_one_argument_that_is_a_tuple(self, parts):
        class OneTuple(nn.Module):
            def __init__(self):
                super().__init__()
                self.network = TwoInputs()

            def forward(self, pair):
                return self.network(*pair)

        found = attribute(OneTuple(), tuple(parts.values()), target=1)
        assert torch.equal(found[1], attribute(TwoInputs(), tuple(parts.values()), target=1)[1])

    def test_tuple_of_one(self, x):
        assert torch.equal(attribute(cnn(), (x,), target=1)[0], attribute(cnn(), x, target=1))

    @pytest.mark.parametrize("name", METHODS)
    def test_batch_of_one(self, name, x):
        if name == "FeaturePermutation":
            pytest.skip("needs two samples")
        given = options(name, layer="3")
        target = TARGET[:1] if target_of(name) is not None else None
        found = attribute(plain_cnn(), x[:1], target=target, **given)
        same = given | {"attribute_args": given["attribute_args"] | chunking(name, 1)}
        assert torch.equal(found, raw(name, plain_cnn(), x[:1], TARGET[:1], same))

    def test_unused_input_has_no_share(self, parts):
        class LeftOnly(TwoInputs):
            def forward(self, left, right):
                return self.left(left)

        found = attribute(LeftOnly(), (parts["left"], parts["right"]), method="InputXGradient", target=1)
        assert found[1].abs().max() == 0
        assert found[0].abs().max() > 0

    @pytest.mark.parametrize("name", [name for name in METHODS if name not in ("LayerLRP", "FeaturePermutation")])
    def test_one_output_per_sample(self, name, x):
        """``(N,)`` and ``(N, 1)`` without a target, and ``(N, 1)`` with target 0, are all the same."""

        class Last(nn.Module):
            def __init__(self, rows):
                super().__init__()
                self.network, self.rows = plain_cnn(), rows

            def forward(self, x):
                found = self.network(x)[:, :1]
                return found[:, 0] if self.rows else found

        given = options(name, layer="network.3")
        found = attribute(Last(rows=False), x, **given)
        assert torch.equal(found, attribute(Last(rows=True), x, **given))
        if target_of(name) is not None:
            assert torch.equal(found, attribute(Last(rows=False), x, target=0, **given))

    def test_double_precision(self, x):
        found = attribute(cnn().double(), x.double(), target=TARGET, baselines=x[:1])
        assert found.dtype == torch.float64

    @pytest.mark.parametrize("target", [TARGET, TARGET.tolist(), TARGET.numpy(), TARGET.to(torch.int32), TARGET.byte()])
    def test_targets_of_every_type(self, x, target):
        assert torch.equal(attribute(cnn(), x, target=target), attribute(cnn(), x, target=TARGET))
        assert torch.equal(attribute(cnn(), x, target=target[1]), attribute(cnn(), x, target=2))

    def test_inputs_are_not_written_to(self, x):
        kept = x.clone()
        for name in METHODS:
            attribute(plain_cnn(), x, target=target_of(name), **options(name, layer="3"))
        assert torch.equal(x, kept)
        assert x.grad is None
        assert not x.requires_grad

    @pytest.mark.parametrize("name", METHODS)
    def test_networks_that_write_to_their_inputs(self, name, x):
        """Captum would crash on the gradient methods, and be wrong without a word with the others."""

        class Normalise(nn.Module):
            def __init__(self, in_place):
                super().__init__()
                self.network, self.in_place = plain_cnn(), in_place

            def forward(self, x):
                return self.network(x.sub_(0.5).mul_(2) if self.in_place else x.sub(0.5).mul(2))

        given = options(name, layer="network.3") | {"target": target_of(name)}
        alarm = pytest.warns(UserWarning, match="sub_|mul_") if "LRP" in name else contextlib.nullcontext()
        with alarm:
            found = attribute(Normalise(True), x, **given)
        with pytest.warns(UserWarning, match="sub|mul") if "LRP" in name else contextlib.nullcontext():
            assert torch.equal(found, attribute(Normalise(False), x, **given))

    @pytest.mark.parametrize("name", METHODS)
    def test_bfloat16(self, name, x):
        given = options(name, layer="3") | {"target": target_of(name)}
        found = attribute(plain_cnn().bfloat16(), x.bfloat16(), **given)
        expected = attribute(plain_cnn(), x, **given)
        assert torch.nn.functional.cosine_similarity(found.float().flatten(), expected.flatten(), dim=0) > 0.9

    def test_results_belong_to_no_graph(self, x):
        for name in METHODS:
            found = attribute(plain_cnn(), x.clone().requires_grad_(), target=target_of(name), **options(name, "3"))
            assert not found.requires_grad, name


class TestCall:
    """What is called, and where its logits are."""

    @pytest.mark.parametrize(
        ("wrap", "output"),
        [
            (lambda logits: {"logits": logits, "loss": None}, None),
            (lambda logits: {"scores": logits, "logits": None}, "scores"),
            (lambda logits: (logits, logits * 2), None),
            (lambda logits: (logits * 2, logits), 1),
            (lambda logits: [logits * 2, logits], -1),
            (lambda logits: type("Output", (), {"logits": logits})(), None),
            (lambda logits: type("Output", (), {"head": logits})(), "head"),
            (lambda logits: {"head": {"deep": logits}}, lambda found: found["head"]["deep"]),
            (lambda logits: -logits, "torch.neg"),
            (lambda logits: {"a.b": logits}, "a.b"),
        ],
    )
    def test_outputs(self, x, wrap, output):
        class Wrapped(nn.Module):
            def __init__(self):
                super().__init__()
                self.network = cnn()

            def forward(self, x):
                return wrap(self.network(x))

        assert torch.equal(attribute(Wrapped(), x, target=1, output=output), attribute(cnn(), x, target=1))

    def test_other_method(self, x):
        class Other(nn.Module):
            def __init__(self):
                super().__init__()
                self.network = cnn()

            def score(self, x):
                return self.network(x)

        for name in ("IntegratedGradients", "DeepLift", "LRP", "Occlusion"):
            given = options(name)
            found = attribute(Other(), x, target=1, call="score", **given)
            assert torch.equal(found, attribute(cnn(), x, target=1, **given))

    def test_transformers(self):
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(0)
        config = BertConfig(
            **{"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 3},
            **{"intermediate_size": 16, "attn_implementation": "eager", "max_position_embeddings": 16},
        )
        network = BertForSequenceClassification(config).train()
        ids = torch.randint(1, 30, (5, 7))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "return_dict": True}
        batch["attention_mask"][:, 5:] = 0
        layer = "bert.embeddings.word_embeddings"
        found = attribute(
            network, batch, method="LayerIntegratedGradients", layer=layer, target=1, internal_batch_size=2
        )
        assert found.shape == (5, 7, 8)
        assert network.training
        network.eval()
        explainer = captum.attr.LayerIntegratedGradients(
            lambda ids, mask: network(ids, mask).logits, network.get_submodule(layer)
        )
        expected = explainer.attribute(ids, target=1, additional_forward_args=batch["attention_mask"])
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        ablated = attribute(network, batch, method="FeatureAblation", target=1)["input_ids"]
        with torch.no_grad():
            without = ids.clone()
            without[:, 2] = 0
            masks = {"attention_mask": batch["attention_mask"]}
            drop = (network(ids, **masks).logits - network(without, **masks).logits)[:, 1]
        torch.testing.assert_close(ablated[:, 2], drop, atol=1e-6, rtol=1e-5)
        # The mask was passed along. Not exactly zero: matrix products may round differently by the size of the batch.
        assert ablated[:, 5:].abs().max() <= 1e-6 * ablated.abs().max()


class TestRehearse:
    """What is known before the first step is refused there, at the price of a sample."""

    @pytest.mark.parametrize("name", METHODS)
    def test_passes_what_runs_without_a_trace(self, name, x):
        network, sizes = plain_cnn().train(), []
        network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
        before = digest([module_state(network), rng_state()])
        given = options(name, layer="3")
        given.pop("baselines", None)
        rehearse(network, x, **given)
        assert set(sizes) == {1}
        assert len(sizes) <= 3
        assert digest([module_state(network), rng_state()]) == before

    def test_warns_of_pitfalls(self):
        with pytest.warns(UserWarning, match="GuidedBackprop treats these as plain gradients.*relu"):
            rehearse(FunctionalReLU(), torch.zeros(2, 5), method="GuidedBackprop")

    class Raises(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, x):
            raise self.error

    ERRORS = [
        RuntimeError("mat1 and\n mat2"),
        TypeError("a"),
        KeyError("b"),
        IndexError("c"),
        AttributeError("d"),
        AssertionError("e"),
        NotImplementedError("f"),
    ]

    @pytest.mark.parametrize("error", ERRORS)
    def test_networks_that_cannot_be_called_like_this(self, error):
        with refused("Raises.forward cannot be called with Tensor[1, 5] float32", "module=", "batch_to_inputs="):
            rehearse(self.Raises(error), torch.zeros(4, 5))

    def test_errors_of_another_kind_are_the_networks_own(self):
        with pytest.raises(ZeroDivisionError):
            rehearse(self.Raises(ZeroDivisionError()), torch.zeros(4, 5))

    def test_refuses_what_the_real_run_would(self):
        with refused("one row of logits per sample"):
            rehearse(nn.Conv2d(2, 3, 1), torch.zeros(2, 2, 4, 4), output=lambda maps: maps.sum())
        with refused("LRP has no rule for '0' (LayerNorm)"), pytest.warns(UserWarning, match="layer_norm"):
            rehearse(nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3)), torch.zeros(2, 5), method="LRP")
        with refused("LRP cannot explain a module that is used more than once: '0'"):
            rehearse(nn.Sequential(*[nn.Linear(5, 5)] * 2, nn.Linear(5, 3)), torch.zeros(2, 5), method="LRP")
