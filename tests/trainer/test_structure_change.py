"""Training goes on with the parameters there are now, whatever holds on to parameters."""

import copy
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from processes import run_script
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from lit_xai.structure.attachment import attach, detach
from lit_xai.structure.kinds import apply_step_
from lit_xai.structure.recipe import KEY, Recipe, recipe_of
from lit_xai.trainer.access import refuse_strategies
from lit_xai.trainer.structure_change import averaged_copies, change_structure, refuse_optimizers

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


def cut(prefix, kept, size):
    """The step that keeps some channels of a convolution before a linear layer, written out."""
    names = [f"{prefix}0.weight", f"{prefix}0.bias", f"{prefix}1.weight", f"{prefix}1.bias"]
    names += [f"{prefix}1.running_mean", f"{prefix}1.running_var"]
    rows = [[name, 0, size, kept] for name in names] + [[f"{prefix}5.weight", 1, size, kept]]
    attributes = [[f"{prefix}0", "out_channels", size, len(kept)], [f"{prefix}1", "num_features", size, len(kept)]]
    attributes += [[f"{prefix}5", "in_features", size, len(kept)]]
    return {"kind": "prune", "kept": rows, "attributes": attributes}


def network():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )


class Module(LightningModule):
    def __init__(self, make=torch.optim.Adam, **options):
        super().__init__()
        torch.manual_seed(0)
        self.network, self.make, self.options = network(), make, options

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self):
        return self.make(self.parameters(), **self.options)


class Change(Callback):
    """The least that a pruning callback does; every cut keeps all but one channel."""

    def __init__(self, epochs=(1, 2), prefix="network."):
        self.epochs, self.prefix = epochs, prefix

    def setup(self, trainer, pl_module, stage):
        attach(pl_module, self, lambda: averaged_copies(trainer))

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch in self.epochs:
            size = 8 - self.epochs.index(trainer.current_epoch)
            change_structure(trainer, pl_module, cut(self.prefix, [i for i in range(size) if i != 2], size))
            assert all(p.grad is None for p in pl_module.parameters())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        live = [p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]]
        assert sorted(map(id, live)) == sorted(map(id, pl_module.parameters()))
        for optimizer in trainer.optimizers:
            assert {id(p) for p in optimizer.state} <= set(map(id, live))

    def teardown(self, trainer, pl_module, stage):
        detach(pl_module, self)


def data(n=16):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(x, torch.arange(n) % 4), batch_size=8)


def trainer_of(folder, *callbacks, package=None, **options):
    return (package.Trainer if package else Trainer)(
        **({"max_epochs": 4, "accelerator": "cpu", "logger": False, "default_root_dir": folder} | options),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any("Checkpoint" in type(callback).__name__ for callback in callbacks),
    )


def fit(module, folder, *callbacks, **options):
    trainer = trainer_of(folder, *callbacks, **options)
    trainer.fit(module, data(), data())
    return trainer


# --- optimizers -------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "Adam": (torch.optim.Adam, {}),
    "fused Adam": (torch.optim.Adam, {"fused": True}),
    "foreach AdamW": (torch.optim.AdamW, {"foreach": True, "amsgrad": True}),
    "SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "RMSprop": (torch.optim.RMSprop, {"centered": True, "momentum": 0.5}),
    "Rprop": (torch.optim.Rprop, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "Adadelta": (torch.optim.Adadelta, {}),
    "Adamax": (torch.optim.Adamax, {}),
    "ASGD": (torch.optim.ASGD, {}),
    "NAdam": (torch.optim.NAdam, {}),
    "RAdam": (torch.optim.RAdam, {}),
    "Adafactor": (torch.optim.Adafactor, {}),
}


def trained(make, options):
    torch.manual_seed(0)
    net = network()
    optimizer = make(net.parameters(), **options)
    for _ in range(2):
        step_of(net, optimizer)
    return net, optimizer


def step_of(net, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = net(torch.ones(4, 1, 8, 8) + torch.arange(4.0)[:, None, None, None]).square().mean()
        loss.backward()
        return loss

    return optimizer.step(closure)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizers_state_follows(name):
    net, optimizer = trained(*OPTIMIZERS[name])
    old = {n: (p, copy.deepcopy(optimizer.state[p])) for n, p in net.named_parameters()}
    kept = [0, 3, 4, 7]
    apply_step_(net, cut("", kept, 8), [optimizer])
    assert set(optimizer.state) == {p for group in optimizer.param_groups for p in group["params"]}
    for n, parameter in net.named_parameters():
        before, state = old[n]
        dim = {"5.weight": 1, "5.bias": None}.get(n, 0)
        assert optimizer.state[parameter].keys() == state.keys()
        for key, value in optimizer.state[parameter].items():
            expected = state[key]
            if isinstance(expected, torch.Tensor) and dim is not None and expected.dim() == before.dim():
                whole = expected.shape[dim] == before.shape[dim]
                expected = expected.index_select(dim, torch.tensor(kept)) if whole else expected
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(expected)), (n, key)
    step_of(net, optimizer)


class Factored(torch.optim.Optimizer):
    """Keeps row and column factors without the dimension they are means over, as transformers' Adafactor does."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self, closure=None):
        closure()
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            if p.dim() > 1:
                state["exp_avg_sq_row"], state["exp_avg_sq_col"] = p.grad.square().mean(-1), p.grad.square().mean(-2)
                row, column = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
                p.data -= 0.01 * p.grad / (row.unsqueeze(-1) * column.unsqueeze(-2)).sqrt().add(1e-3)
            state["RMS"], state["step"] = 0.5, 1


@pytest.mark.parametrize("square", [False, True])
def test_row_and_column_factors_follow(square):
    net = nn.Sequential(nn.Linear(5 if square else 3, 5), nn.Linear(5, 5))
    optimizer = Factored(net.parameters())
    optimizer.step(lambda: net(torch.rand(4, net[0].in_features)).square().sum().backward())
    first, second = (copy.deepcopy(optimizer.state[layer.weight]) for layer in net)
    kept = torch.tensor([0, 2, 4])
    step = {"kind": "prune", "attributes": []}
    step["kept"] = [["0.weight", 0, 5, [0, 2, 4]], ["0.bias", 0, 5, [0, 2, 4]], ["1.weight", 1, 5, [0, 2, 4]]]
    apply_step_(net, step, [optimizer])
    found = [optimizer.state[layer.weight] for layer in net]
    assert torch.equal(found[0]["exp_avg_sq_row"], first["exp_avg_sq_row"][kept])
    assert torch.equal(found[0]["exp_avg_sq_col"], first["exp_avg_sq_col"])
    assert torch.equal(found[1]["exp_avg_sq_row"], second["exp_avg_sq_row"])
    assert torch.equal(found[1]["exp_avg_sq_col"], second["exp_avg_sq_col"][kept])
    optimizer.step(lambda: net(torch.rand(4, net[0].in_features)).square().sum().backward())


class Hoarder(torch.optim.SGD):
    """Keeps what nobody can cut."""

    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            self.state[p].setdefault("history", []).append(p.detach().flatten())


def test_state_that_cannot_follow_starts_anew_and_says_so():
    net, optimizer = trained(Hoarder, {"lr": 0.1})
    with pytest.warns(UserWarning, match="Hoarder keeps state .* that of 5 pruned parameters starts from zero"):
        apply_step_(net, cut("", [0, 1], 8), [optimizer])
    assert list(optimizer.state) == [net[5].bias]
    step_of(net, optimizer)
    assert len(optimizer.state[net[5].bias]["history"]) == 3
    assert len(optimizer.state[net[0].weight]["history"]) == 1


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_lbfgs_starts_anew_and_says_so(line_search):
    net, optimizer = trained(torch.optim.LBFGS, {"lr": 0.01, "line_search_fn": line_search})
    with pytest.warns(UserWarning, match="LBFGS keeps its history"):
        apply_step_(net, cut("", [0, 1, 5], 8), [optimizer])
    step_of(net, optimizer)
    assert step_of(net, optimizer).isfinite()
    assert all(id(a) == id(b) for a, b in zip(optimizer._params, net.parameters(), strict=True))


def test_flags_hooks_attributes_and_layout_follow():
    net = network().to(memory_format=torch.channels_last)
    net[0] = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    net[1].requires_grad_(False)
    called = []
    net[0].weight.register_hook(lambda grad: called.append("grad"))
    net[0].weight.register_post_accumulate_grad_hook(lambda p: called.append("accumulated"))
    net[0].weight.no_decay = True
    apply_step_(net, cut("", [0, 1, 5], 8))
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not net[0].weight.is_contiguous()
    assert net[0].weight.no_decay
    assert [p.requires_grad for p in net.parameters()] == [True, True, False, False, True, True]
    net(torch.rand(2, 4, 8, 8)).sum().backward()
    assert called == ["grad", "accumulated"]


# --- in a Trainer -----------------------------------------------------------------------------------------------------


class Manual(Module):
    """Two optimizers and a scheduler, stepped by hand, half of the parameters frozen first."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.rates = []

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()
        self.lr_schedulers().step()
        self.rates.append(self.optimizers()[0].param_groups[0]["lr"])

    def configure_optimizers(self):
        first = torch.optim.SGD(self.network[:2].parameters(), lr=1.0, momentum=0.9)
        second = torch.optim.Adam(self.network[2:].parameters())
        return [first, second], [torch.optim.lr_scheduler.ExponentialLR(first, 0.5)]


def test_several_optimizers_by_hand(tmp_path):
    module = Manual()
    fit(module, tmp_path, Change())
    assert module.network[0].out_channels == 6
    assert module.rates == [0.5**i for i in range(1, 9)]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_accumulated_clipped_and_scheduled(tmp_path, precision, accumulate):
    class Scheduled(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.1)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=8)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    module = Scheduled()
    options = {"precision": precision, "accumulate_grad_batches": accumulate, "gradient_clip_val": 0.1}
    trainer = fit(module, tmp_path, Change(), **options)
    assert trainer.lr_scheduler_configs[0].scheduler.optimizer.param_groups[0]["params"][0] is module.network[0].weight
    assert trainer.global_step == 8 // accumulate


def test_a_gradient_scaler_goes_on(tmp_path):
    """On the CPU, where float16 works too."""
    from lightning.pytorch.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    module = Module(torch.optim.SGD, lr=0.1)
    fit(module, tmp_path, Change(), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert module.network[0].out_channels == 6
    assert scaler.get_scale() == 8.0 * 2**4


def test_tied_weights_stay_tied(tmp_path):
    class Tied(Module):
        def __init__(self):
            super().__init__()
            self.again = self.network

        def forward(self, x):
            return self.network(x) + self.again(x)

    module = Tied()
    fit(module, tmp_path, Change())
    assert module.again[0].weight is module.network[0].weight
    assert module.network[0].weight.shape[0] == 6


# --- averages ---------------------------------------------------------------------------------------------------------


def averaging(package, kind):
    if kind == "swa":
        return package.callbacks.StochasticWeightAveraging(0.01, swa_epoch_start=2, annealing_epochs=1)
    ema = {"ema": package.callbacks.EMAWeightAveraging}
    return ema[kind](decay=0.5) if kind in ema else package.callbacks.WeightAveraging()


@pytest.mark.filterwarnings("ignore:.*You're using the WeightAveraging callback, but loading")
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["mean", "ema", "swa"])
@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_averages_are_cut_in_step(tmp_path, package, kind, first):
    pl = import_module(package)
    bases = (pl.LightningModule,) if package == "pytorch_lightning" else ()
    module = (type("Other", bases, dict(vars(Module)) | {"__init__": other_init}) if bases else Module)()
    saved = pl.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    average = averaging(pl, kind)
    callbacks = [average, Change(), saved] if first else [Change(), average, saved]
    trainer = trainer_of(tmp_path, *callbacks, package=pl)
    trainer.fit(module, data(), data())
    assert module.network[0].out_channels == 6
    for epoch, width in enumerate([8, 7, 6, 6]):
        checkpoint = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=False)
        assert checkpoint["state_dict"]["network.0.weight"].shape[0] == width
        if kind != "swa":
            assert checkpoint["current_model_state"]["network.0.weight"].shape[0] == width
        assert len(checkpoint.get(KEY, {"steps": []})["steps"]) == 8 - width
    if kind == "swa":
        return
    # Resumed from each, in a fresh module, and tested: the averages are brought to the checkpoint's structure first.
    for epoch in (0, 1, 2):
        again, average = type(module)(), averaging(pl, kind)
        callbacks = [average, Change()] if first else [Change(), average]
        trainer = trainer_of(tmp_path, *callbacks, package=pl)
        trainer.fit(again, data(), data(), ckpt_path=tmp_path / f"epoch={epoch}.ckpt")
        for name, value in module.state_dict().items():
            torch.testing.assert_close(again.state_dict()[name], value, msg=name)
        trainer.test(again, data(), ckpt_path=tmp_path / "epoch=1.ckpt", verbose=False)
        assert again.network[0].out_channels == 7


def other_init(self):
    import pytorch_lightning

    pytorch_lightning.LightningModule.__init__(self)
    torch.manual_seed(0)
    self.network, self.make, self.options = network(), torch.optim.Adam, {}


def test_the_average_is_that_of_the_kept_channels(tmp_path):
    """Against a run in which the channel that goes has no weight and learns nothing from the start."""
    from lightning.pytorch.callbacks import EMAWeightAveraging

    class Look(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                (copied,) = averaged_copies(trainer)
                self.before = copy.deepcopy(copied.state_dict())

    class LookAfter(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                (copied,) = averaged_copies(trainer)
                self.after = copy.deepcopy(copied.state_dict())

    look, after, ema = Look(), LookAfter(), EMAWeightAveraging(decay=0.5)
    fit(Module(), tmp_path, ema, look, Change((1,)), after)
    assert isinstance(ema._average_model, AveragedModel)
    kept = torch.tensor([0, 1, 3, 4, 5, 6, 7])
    for name, value in after.after.items():
        dim = {"network.5.weight": 1, "network.5.bias": None, "network.1.num_batches_tracked": None}.get(name, 0)
        expected = look.before[name] if dim is None else look.before[name].index_select(dim, kept)
        assert torch.equal(value, expected), name


# --- torch.compile ----------------------------------------------------------------------------------------------------

COMPILE = {"backend": "aot_eager"}


def layers(module):
    return getattr(module.network, "_orig_mod", module.network)


def compiled_inside():
    module = Module()
    module.network = torch.compile(module.network, **COMPILE)
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("make", [compiled_inside, lambda: torch.compile(Module(), **COMPILE)], ids=["part", "whole"])
def test_compiled_code_is_made_anew(tmp_path, make):
    from lightning.pytorch.callbacks import ModelCheckpoint

    torch.compiler.reset()
    plain, compiled = Module(), make()
    fit(plain, tmp_path / "plain", Change())
    trainer = fit(compiled, tmp_path, Change(), ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1))
    module = trainer.lightning_module
    for expected, value in zip(plain.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    assert layers(module)[0].out_channels == 6
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(module.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-5)
    # A compiled part's checkpoint fits a compiled part; a compiled whole's fits any.
    fresh = make() if make is compiled_inside else Module()
    for epoch, width in ((1, 7), (3, 6), (0, 8)):
        tester = trainer_of(tmp_path, Change())
        tester.test(fresh, data(), ckpt_path=tmp_path / f"epoch={epoch}.ckpt", verbose=False)
        assert layers(fresh)[0].out_channels == width
    torch.compiler.reset()


@pytest.mark.parametrize("recorded", ["network.", "network._orig_mod."])
def test_a_recipe_fits_compiled_and_not(recorded):
    for module in (Module(), compiled_inside()):
        recipe = Recipe([cut(recorded, [0, 1, 5], 8)])
        recipe.replay_(module)
        assert layers(module)[0].weight.shape[0] == layers(module)[0].out_channels == 3
        assert module.network(torch.rand(2, 1, 8, 8)).shape == (2, 4)
        Recipe().replay_(module, since=recipe)
        assert layers(module)[5].weight.shape == (4, 8)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"])
def test_strategies_that_spread_weights_are_refused_by_name(strategy):
    trainer = Trainer(logger=False, accelerator="cpu")
    refuse_strategies(trainer, "StructuredPruning")
    trainer.strategy.__class__ = type(strategy, (type(trainer.strategy),), {"__module__": "lightning.pytorch"})
    with pytest.raises(MisconfigurationException, match=f"^StructuredPruning cannot work with {strategy}, .* one dev"):
        refuse_strategies(trainer, "StructuredPruning")


def test_spread_optimizers_are_refused_by_name(tmp_path):
    class ZeroRedundancyOptimizer(torch.optim.SGD):
        """As torch's, which needs a process group, is called."""

    class Refuse(Callback):
        def on_train_start(self, trainer, pl_module):
            refuse_optimizers(trainer, "StructuredPruning")

    fit(Module(), tmp_path, Refuse())
    with pytest.raises(MisconfigurationException, match="cannot work with ZeroRedundancyOptimizer"):
        fit(Module(ZeroRedundancyOptimizer), tmp_path, Refuse())


def test_a_step_that_does_not_fit_changes_nothing(tmp_path):
    class Wrong(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            before = [id(p) for p in pl_module.parameters()]
            with pytest.raises(ValueError, match="The recipe does not fit"):
                change_structure(trainer, pl_module, cut("network.", [0, 1], 9))
            assert [id(p) for p in pl_module.parameters()] == before
            assert recipe_of(pl_module).steps == []

    fit(Module(), tmp_path, Wrong())


# --- DDP --------------------------------------------------------------------------------------------------------------


def test_the_private_names_that_are_used_are_there():
    strategy = DDPStrategy()
    assert callable(strategy._setup_model)
    assert callable(strategy._register_ddp_hooks)
    assert strategy._pl_static_graph_delay_done is False


@pytest.mark.slow  # pruning/test_ddp.py trains on two processes as well
@pytest.mark.parametrize("options", [[], ["--static-graph"], ["--by-hand"]], ids=["plain", "static graph", "by hand"])
def test_two_processes_do_what_one_does(tmp_path, options):
    for processes, folder in ((2, "two"), (1, "one")):
        script = Path(__file__).with_name("ddp_structure.py")
        run_script(script, tmp_path / folder, *options, processes=processes)
    for epoch in range(4):
        first, second = (torch.load(tmp_path / "two" / f"epoch{epoch}-rank{rank}.pt") for rank in (0, 1))
        assert [value.shape[0] for name, value in first.items() if name.endswith("0.weight")] == [8 - min(epoch, 2)]
        assert all(torch.equal(first[name], second[name]) for name in first)
        whole = torch.load(tmp_path / "one" / f"epoch{epoch}-rank0.pt")
        for name, value in whole.items():
            torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6, msg=f"{epoch} {name}")
