"""Keras 3 models on the torch backend, against the same networks written in torch."""

import copy
import os
import subprocess
import sys

os.environ["KERAS_BACKEND"] = "torch"  # read when Keras is imported, which nothing else of the tests does

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

keras = pytest.importorskip("keras", exc_type=ImportError)

from lit_xai import KnowledgeDistillation, RetentionMonitor, StructuredPruning  # noqa: E402
from lit_xai import QuantizationAwareTraining as Quant  # noqa: E402
from lit_xai.attribution.attribution import attribute  # noqa: E402
from lit_xai.data import Digits  # noqa: E402
from lit_xai.models import Classifier, KerasNetwork, Regressor, ResNet  # noqa: E402
from lit_xai.network.copying import copy_network  # noqa: E402
from lit_xai.network.keras import channels_first, channels_last  # noqa: E402
from lit_xai.network.untouched import untouched  # noqa: E402
from lit_xai.pruning.pruning import prune_step  # noqa: E402
from lit_xai.quantization.quantization import plan_quantization  # noqa: E402
from lit_xai.runtime.file_network import FileNetwork  # noqa: E402
from lit_xai.runtime.onnx import export_onnx  # noqa: E402

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
QUIET |= {"accelerator": "cpu"}


def keras_model(activation=None):
    keras.utils.set_random_seed(0)
    k = keras.layers
    layers = [
        k.Conv2D(6, 3, padding="same", name="conv"),
        k.BatchNormalization(epsilon=1e-3, momentum=0.9, name="norm"),
    ]
    layers += [
        k.ReLU(name="relu"),
        k.GlobalAveragePooling2D(name="pool"),
        k.Dense(4, activation=activation, name="head"),
    ]
    return keras.Sequential([k.Input((8, 8, 2)), *layers])


def batches(images):
    return DataLoader([(images, torch.tensor([0, 1, 2, 3, 0]))] * 3, batch_size=None)


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def twin(model):
    """The network of ``keras_model`` in torch, with its weights."""
    network = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6, eps=1e-3, momentum=0.1), nn.ReLU())
    network = nn.Sequential(*network, Pool(), nn.Linear(6, 4))
    kernel, bias, gamma, beta, mean, variance, weight, head = (torch.tensor(value) for value in model.get_weights())
    with torch.no_grad():
        network[0].weight.copy_(kernel.permute(3, 2, 0, 1))
        network[0].bias.copy_(bias)
        for old, new in zip((gamma, beta, mean, variance), (network[1].weight, network[1].bias), strict=False):
            new.copy_(old)
        network[1].running_mean.copy_(mean)
        network[1].running_var.copy_(variance)
        network[4].weight.copy_(weight.T)
        network[4].bias.copy_(head)
    return network


@pytest.fixture
def pair():
    model = keras_model()
    return KerasNetwork(model), twin(model)


@pytest.fixture
def images():
    return torch.randn(5, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def test_outputs_are_those_of_the_network_in_torch_in_both_modes(pair, images):
    for train in (False, True, False):  # the last with statistics that have moved
        ours, witness = (network.train(train)(images) for network in pair)
        # Keras normalizes by the variance of the batch and keeps that; torch keeps the unbiased one.
        pair[1][1].running_var.copy_(pair[0].layers["norm"].moving_variance.data)
        torch.testing.assert_close(ours, witness, rtol=1e-4, atol=1e-5)


def test_layers_have_their_names_and_each_weight_is_there_once(pair):
    network, _ = pair
    assert list(network.layers) == ["conv", "norm", "relu", "pool", "head"]
    names = [name for name, _ in network.named_parameters()]
    assert "layers.conv.kernel" in names
    assert set(network.state_dict()) == set(names)
    assert len({id(p) for p in network.parameters()}) == len(network.model.variables)
    assert not network.layers["norm"].moving_mean.requires_grad


def test_training_moves_the_users_own_model(images):
    model = keras_model()
    before = [value.copy() for value in model.get_weights()]
    classifier = Classifier(model, num_classes=4, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    Trainer(max_epochs=1, **QUIET).fit(classifier, batches(images), batches(images))
    # Batch statistics move too, since the model is called with training=True.
    assert all((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    witness = twin(model)  # of the weights after training
    torch.testing.assert_close(classifier.eval()(images), witness.eval()(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["InputXGradient", "IntegratedGradients", "LayerGradCam", "LayerActivation"])
def test_explanations_are_those_of_the_network_in_torch(pair, images, method):
    at = [{"layer": "layers.relu"}, {"layer": "2"}] if method.startswith("Layer") else [{}, {}]
    options = {} if method == "LayerActivation" else {"target": 1}
    ours, witness = (
        attribute(network.eval(), images, method=method, **layer, **options)
        for network, layer in zip(pair, at, strict=True)
    )
    torch.testing.assert_close(ours, witness, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_what_ends_in_probabilities_gives_logits(images, activation):
    network = KerasNetwork(keras_model(activation)).eval()
    chances = torch.as_tensor(network.model(channels_last(images), training=False))
    logits = network(images)
    found = logits.softmax(1) if activation == "softmax" else logits.sigmoid()
    torch.testing.assert_close(found, chances)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_regression_gets_the_values_that_the_model_returns(images, activation):
    model = keras_model(activation)
    regressor = Regressor(model).eval()
    expected = torch.as_tensor(model(channels_last(images), training=False))
    torch.testing.assert_close(regressor(images), expected)
    torch.testing.assert_close(copy_network(regressor)(images), expected)


def test_copies_are_independent_and_equal(pair, images):
    network, _ = pair
    network.train()(images).sum().backward()
    for copied in (copy.deepcopy(network), copy_network(network)):
        assert torch.equal(copied.eval()(images), network.eval()(images))
        assert torch.equal(copied.layers["conv"].kernel.grad, network.layers["conv"].kernel.grad)
        with torch.no_grad():
            copied.layers["conv"].kernel.zero_()
        assert network.layers["conv"].kernel.abs().sum() > 0


def several():
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    return keras.Model([a, b], keras.layers.Dense(2, name="out")(keras.layers.Concatenate(name="both")([a, b])))


def nested():
    inner = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, name="deep")], name="inner")
    x = keras.Input((3,))
    return keras.Model(x, keras.layers.Dense(2, name="out")(inner(x)))


def test_several_inputs_go_by_order_or_by_name():
    network = KerasNetwork(several())
    a, b = torch.randn(4, 3), torch.randn(4, 2)
    witness = torch.cat([a, b], 1) @ network.layers["out"].kernel + network.layers["out"].bias
    torch.testing.assert_close(network(a, b), witness)
    torch.testing.assert_close(network(a=a, b=b), witness)


def test_models_within_models_are_layers_within_layers():
    network = KerasNetwork(nested())
    assert "layers.inner.deep.kernel" in dict(network.named_parameters())
    seen = []
    network.get_submodule("layers.inner.deep").register_forward_hook(lambda *args: seen.append(args[2].shape))
    network(torch.randn(5, 3))
    assert seen == [(5, 4)]


@keras.saving.register_keras_serializable("lit_xai_tests")
class Own(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.last = keras.layers.Dense(4, name="first"), keras.layers.Dense(2, name="last")

    def call(self, x, training=None):
        return self.last(self.first(x) * (2.0 if training else 1.0))


def test_a_model_of_ones_own_class_is_told_of_training_and_copied():
    model = Own()
    model(torch.zeros(1, 3))
    network, x = KerasNetwork(model), torch.randn(4, 3)
    bias = network.layers["last"].bias
    torch.testing.assert_close(network.train()(x) - bias, 2 * (network.eval()(x) - bias))
    torch.testing.assert_close(copy_network(network)(x), network(x))


def test_nothing_is_left_by_an_explanation(pair, images):
    network, _ = pair
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attribute(network, images, target=1)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_file_answers_as_the_model(pair, images, tmp_path):
    network = pair[0].eval()
    export_onnx(network, images, tmp_path / "model.onnx")
    found = FileNetwork(tmp_path / "model.onnx")(images[:3])
    torch.testing.assert_close(found, network(images[:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["openvino", pytest.param("tensorflow", marks=pytest.mark.slow), "jax"])
def test_a_saved_model_predicts_the_same_in_other_backends(images, tmp_path, backend):
    pytest.importorskip(backend)
    model = keras_model()
    classifier = Classifier(model, num_classes=4, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    Trainer(max_epochs=1, **QUIET).fit(classifier, batches(images), batches(images))
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", channels_last(images).numpy())
    code = "import keras, numpy; x = numpy.load('x.npy'); y = keras.models.load_model('model.keras')(x, training=False)"
    code += "; numpy.save('y.npy', keras.ops.convert_to_numpy(y))"
    environment = os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True)
    expected = classifier.eval()(images).detach().numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-4, atol=1e-5)


class Mine(LightningModule):
    """A module of somebody else, which holds a Keras model and calls it itself."""

    def __init__(self):
        super().__init__()
        self.net = keras_model()

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.net(channels_last(batch[0]), training=self.training), batch[1])

    def validation_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


@pytest.mark.parametrize("callback", [lambda: StructuredPruning(pruning_ratio=0.5), lambda: Quant(0)])
@pytest.mark.parametrize("module", [lambda: Classifier(keras_model(), num_classes=4), Mine])
def test_pruning_and_quantization_say_one_sentence(images, callback, module):
    trainer = Trainer(max_epochs=1, callbacks=[callback()], **QUIET)
    with pytest.raises(MisconfigurationException, match=r"needs torch's own layers, but .* computes in Keras'"):
        trainer.fit(module(), batches(images), batches(images))


def test_functions_refuse_it_too(pair, images):
    for function in (prune_step, plan_quantization):
        with pytest.raises(ValueError, match="needs torch's own layers"):
            function(pair[0], images)


def test_what_torch_holds_beside_it_is_pruned(images):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.hidden, self.head = KerasNetwork(keras_model()), nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.hidden(self.body(x)).relu())

    step = prune_step(Both(), images, pruning_ratio=0.5)
    assert {name for name, *_ in step["kept"]} == {"hidden.weight", "hidden.bias", "head.weight"}


def test_a_copy_of_a_module_with_a_keras_model_runs_inside_untouched(images):
    copied = copy_network(nn.Sequential(keras_model()))
    with untouched(copied):
        assert copied(channels_last(images)).shape == (5, 4)


def test_what_is_no_built_keras_model_is_refused():
    with pytest.raises(ValueError, match="built"):
        KerasNetwork(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(TypeError, match=r"expected a keras.Model on the torch backend, but got Linear"):
        KerasNetwork(nn.Linear(2, 2))


def test_layouts_are_each_others_inverse(images):
    assert torch.equal(channels_first(channels_last(images)), images)
    assert channels_first(torch.zeros(2, 5, 3)).shape == (2, 5, 3)  # a sequence has its features last in torch too


@pytest.mark.slow
def test_a_run_with_teacher_and_retention(tmp_path):
    k = keras.layers
    model = keras.Sequential([k.Input((8, 8, 1)), k.Conv2D(8, 3, name="conv"), k.ReLU(name="relu"), k.Flatten()])
    model.add(k.Dense(10))
    teacher = Classifier(ResNet(depth=8, width=4, in_channels=1, num_classes=10), num_classes=10)
    features = {"network.layers.relu": "network.conv1"}
    callbacks = [
        KnowledgeDistillation(teacher, features=features),
        RetentionMonitor(time_share=100.0, time_budget=100.0),
    ]
    trainer = Trainer(max_epochs=2, callbacks=callbacks, default_root_dir=tmp_path, **QUIET)
    trainer.fit(Classifier(model, num_classes=10), Digits(batch_size=64))
    assert trainer.callback_metrics["distillation/features"] > 0
    assert list(tmp_path.glob("retention/**/*.png"))
