"""The private names of other packages in use: all of them stand in one table, and all of them exist.

Any release may move a private name. Most would raise where they are used; some are asked for with a default
(``getattr``, ``vars``), and what depends on them would stop working without a word (SILENT). A release that moves one
fails here, by its name.
"""

import ast
import inspect
import re
import sys
from collections import defaultdict, namedtuple
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lit_xai

PACKAGE = Path(lit_xai.__file__).parent
PRIVATE = re.compile(r"_[A-Za-z]\w*")

ENDINGS = {
    "_batches",
    "_of_dense",
    "_cell",
    "_dataloader",
    "_fields",
    "_metrics",
    "_threshold",
    "_type",
    "_with_indices",
}
"""Strings that are no private names: endings of public ones, and what Python's named tuples document."""

INHERITED = {("attribution/rescaling.py", "_logits"), ("cli/exporting.py", "_check"), ("data/cifar10.py", "_missing")}
"""Names of our own that a class takes from a class of ours in another file."""


def uses(tree: ast.Module) -> Iterator[str]:
    """Yield the private names that a file takes from elsewhere: dotted paths of imports, bare names of attributes."""
    own = set(own_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("lit_xai"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_private(node.module, alias.name))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr):
            if node.attr not in own or ast.unparse(node.value) == "super()":
                yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.startswith("_lit_xai"):
            name = node.value.rpartition(".")[2]
            if re.fullmatch(r"[\w.]*\b_[a-z]\w*", node.value) and name not in own | ENDINGS:
                yield name


def own_names(tree: ast.Module) -> Iterator[str]:
    """Yield the attributes that the classes of a file define."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield part.name
                elif isinstance(part, ast.AnnAssign | ast.Assign):
                    targets = [part.target] if isinstance(part, ast.AnnAssign) else part.targets
                    yield from (target.id for target in targets if isinstance(target, ast.Name))


def is_private(*paths: str | None) -> bool:
    return any(PRIVATE.fullmatch(part) for path in paths for part in (path or "").split("."))


def source(path: str) -> Callable[[], str]:
    """Return a function that reads the source of a class or module: for what exists in a running Trainer alone."""

    def read() -> str:
        module, _, name = path.partition(":")
        loaded = import_module(module)
        return inspect.getsource(getattr(loaded, name) if name else loaded)

    return read


def path(dotted: str) -> Callable[[], Any]:
    """Return a function that imports a module, or an attribute of one after a colon."""
    module, _, name = dotted.partition(":")
    return lambda: getattr(import_module(module), name) if name else import_module(module)


def made(dotted: str) -> Callable[[], Any]:
    """Return a function that makes an instance of a class."""
    return lambda: path(dotted)()()


def init_of(dotted: str) -> Callable[[], str]:
    """Return a function that names what a class sets on itself, where its source cannot be found."""
    return lambda: " ".join(path(dotted)().__init__.__code__.co_names)


def compiled() -> nn.Module:
    return torch.compile(nn.Linear(1, 1), backend="eager")


def fit_loop() -> Any:
    from lightning.pytorch import Trainer

    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False).fit_loop


MODULE = path("torch.nn:Module")
HOOKS = lambda: nn.Linear(1, 1)  # noqa: E731
TENSOR = lambda: nn.Parameter(torch.zeros(1))  # noqa: E731
CLI = path("lightning.pytorch.cli:LightningCLI")

# By name: whose it is, what to look for it in (an object, or the source of a class), and what breaks without it.
ATTRIBUTES: dict[str, tuple[str, Callable[[], Any], str]] = {
    # Python, where it is documented
    "_exit": ("os", path("os"), "a study's cell ends with the worker that started it"),
    # torch
    "_BatchNorm": ("torch.nn", path("torch.nn.modules.batchnorm"), "which layers are BatchNorms"),
    "_C": ("torch", path("torch"), "QAT's refusal of activation checkpointing"),
    "_ConvNd": ("torch.nn", path("torch.nn.modules.conv"), "which layers are convolutions"),
    "_ConvTransposeNd": ("torch.nn", path("torch.nn.modules.conv"), "which layers stay in float"),
    "_NormBase": ("torch.nn", path("torch.nn.modules.batchnorm"), "which layers stay in float"),
    "_apply": ("torch.nn.Module", MODULE, "ranges stay float32 in a half-precision module"),
    "_autograd": ("torch._C", path("torch._C"), "QAT's refusal of activation checkpointing"),
    "_backward_hooks": ("torch.nn.Module", HOOKS, "SILENT: a user's hooks see attribution, or are lost by pruning"),
    "_backward_pre_hooks": ("torch.nn.Module", HOOKS, "a user's hooks see attribution"),
    "_base": ("torch.Tensor", TENSOR, "quantizing weights that are used through a view"),
    "_buffers": ("torch.nn.Module", HOOKS, "cutting buffers, attribution inside inference mode"),
    "_call_impl": ("torch.nn.Module", MODULE, "recording the calls of a network"),
    "_compiled_call_impl": ("torch.nn.Module", HOOKS, "SILENT: compiled parts are neither seen nor left out"),
    "_capture_strategy": ("ONNXProgram", init_of("torch.onnx:ONNXProgram"), "the refusal of a traced branch"),
    "_dynamo": ("torch", path("torch"), "whether compiled code is among what runs"),
    "_foreach_lerp_": ("torch", path("torch"), "the averaged teacher"),
    "_forward_hooks": ("torch.nn.Module", HOOKS, "removing fake quantization"),
    "_forward_hooks_always_called": ("torch.nn.Module", HOOKS, "removing fake quantization"),
    "_forward_pre_hooks": ("torch.nn.Module", HOOKS, "removing fake quantization, seeing computed weights"),
    "_forward_pre_hooks_with_kwargs": ("torch.nn.Module", HOOKS, "removing fake quantization"),
    "_fused_rms_norm": ("torch.ops.aten", lambda: torch.ops.aten, "SILENT: RMSNorm in the check of pruned sums"),
    "_reshape_alias": ("torch.ops.aten", lambda: torch.ops.aten, "SILENT: labels that were viewed"),
    "_is_all_true": ("torch", path("torch"), "exporting a network that draws from a distribution"),
    "_local_scalar_dense": ("torch.ops.aten", lambda: torch.ops.aten, "exporting networks that read numbers"),
    "_log_softmax": ("torch.ops.aten", lambda: torch.ops.aten, "SILENT: softmax in the check of pruned sums"),
    "_modules": ("torch.nn.Module", HOOKS, "replacing a layer"),
    "_numel_cache": ("torch.optim.LBFGS", lambda: torch.optim.LBFGS([TENSOR()]), "pruning under L-BFGS"),
    "_orig_mod": ("torch.compile's wrapper", compiled, "SILENT: names of a compiled network"),
    "_parameters": ("torch.nn.Module", HOOKS, "cutting parameters"),
    "_params": ("torch.optim.LBFGS", lambda: torch.optim.LBFGS([TENSOR()]), "pruning under L-BFGS"),
    "_post_accumulate_grad_hooks": ("torch.Tensor", TENSOR, "a user's hooks on pruned parameters"),
    "_reset_parameters": ("torch.nn.MultiheadAttention", lambda: nn.MultiheadAttention(2, 1), "untrained attention"),
    "_qkv_same_embed_dim": ("torch.nn.MultiheadAttention", lambda: nn.MultiheadAttention(2, 1), "pruning attention"),
    "_scaled_dot_product_flash_attention_for_cpu": ("torch.ops.aten", lambda: torch.ops.aten, "counting attention"),
    "_softmax": ("torch.ops.aten", lambda: torch.ops.aten, "SILENT: softmax in the check of pruned sums"),
    "_to_copy": ("torch.ops.aten", lambda: torch.ops.aten, "SILENT: labels that were cast"),
    "_unsafe_view": ("torch.ops.aten", lambda: torch.ops.aten, "SILENT: labels that were viewed"),
    "_top_saved_tensors_default_hooks": ("torch", path("torch._C:_autograd"), "as for _autograd"),
    "_version": ("torch.Tensor", TENSOR, "quantizing tensors that are written to in place"),
    # Lightning
    "_default_hp_metric": (
        "lightning.pytorch.loggers",
        init_of("lightning.fabric.loggers.tensorboard:TensorBoardLogger"),
        "SILENT: whether the user left out the table of runs",
    ),
    "_get_file_writer": ("torch.utils.tensorboard", path("torch.utils.tensorboard:SummaryWriter"), "a run's page"),
    "_average_model": (
        "WeightAveraging, StochasticWeightAveraging",
        source("lightning.pytorch.callbacks:StochasticWeightAveraging"),
        "SILENT: averaged copies keep the structure of before",
    ),
    "_batches_that_stepped": ("_TrainingEpochLoop", lambda: fit_loop().epoch_loop, "the x-axis of what is logged"),
    "_class_path": ("LightningCLI", source("lightning.pytorch.cli"), "SILENT: arguments out of a checkpoint"),
    "_combined_loader": ("_FitLoop", fit_loop, "the same batches after a resume"),
    "_compiler_ctx": (
        "LightningModule",
        made("lightning.pytorch:LightningModule"),
        "SILENT: compiled steps are not refused",
    ),
    "_current_fx_name": ("LightningModule", made("lightning.pytorch:LightningModule"), "the x-axis"),
    "_data_fetcher": ("_FitLoop", fit_loop, "the same batches after a resume"),
    "_fabric": ("LightningModule", made("lightning.pytorch:LightningModule"), "copies bring it along"),
    "_get": ("LightningCLI", CLI, "--optimizer, --init_from"),
    "_instantiator": ("LightningCLI", source("lightning.pytorch.cli"), "SILENT: hyperparameters of a CLI's module"),
    "_lightning_optimizers": ("Strategy", made("lightning.pytorch.strategies:SingleDeviceStrategy"), "watching steps"),
    "_last_checkpoint_saved": ("ModelCheckpoint", made("lightning.pytorch.callbacks:ModelCheckpoint"), "last.ckpt"),
    "_on_before_batch_transfer": ("LightningModule", path("lightning.pytorch:LightningModule"), "batches as steps"),
    "_parse_ckpt_path": ("LightningCLI", CLI, "SILENT: a checkpoint would choose the class that is built"),
    "_pl_static_graph_delay_done": ("DDPStrategy", made("lightning.pytorch.strategies:DDPStrategy"), "DDP"),
    "_register_ddp_hooks": ("DDPStrategy", made("lightning.pytorch.strategies:DDPStrategy"), "cutting under DDP"),
    "_setup_model": ("DDPStrategy", made("lightning.pytorch.strategies:DDPStrategy"), "cutting under DDP"),
    "_trainer": ("LightningModule", made("lightning.pytorch:LightningModule"), "copies bring it along"),
    # jsonargparse, and argparse below it
    "_actions": ("ArgumentParser", made("jsonargparse:ArgumentParser"), "names in error messages"),
    # transformers
    "_init_weights": ("transformers", path("transformers:PreTrainedModel"), "untrained Hugging Face models"),
    # Captum
    "_remove_rules": ("captum.attr.LRP", path("captum.attr:LRP"), "SILENT: LRP's rules in the second piece"),
    # Torch-Pruning
    "_importance": ("ActivationImportance", source("torch_pruning.pruner.importance"), "activation importance"),
    "_normalize": (
        "GroupMagnitudeImportance",
        path("torch_pruning.pruner.importance:GroupMagnitudeImportance"),
        "scores",
    ),
    "_reduce": ("GroupMagnitudeImportance", path("torch_pruning.pruner.importance:GroupMagnitudeImportance"), "scores"),
    # Python
    "_make": ("a named tuple", lambda: namedtuple("Pair", ("a", "b")), "batches that are named tuples"),
    "_getframe": ("sys", lambda: sys, "whose frames to look through"),
}
# By path: what breaks without it.
IMPORTS = {
    "captum._utils.common._select_targets": "attribution in pieces",
    "captum.attr._core.lrp.SUPPORTED_LAYERS_WITH_RULES": "the layers that LRP is refused for",
    "captum.attr._core.lrp.SUPPORTED_NON_LINEAR_LAYERS": "the layers that LRP is refused for",
    "captum.attr._utils.lrp_rules.EpsilonRule": "LRP",
    "torch.ao.quantization.fx._decomposed": "8-bit files",
    "torch.utils._python_dispatch.TorchDispatchMode": "the check of pruned sums, folding",
    "torch.utils._pytree.tree_flatten": "recurrent layers in a pruned network",
    "torch.utils._pytree.tree_leaves": "nested inputs and outputs",
    "torch.utils._pytree.tree_map": "nested inputs and outputs",
    "torch.utils._pytree.tree_unflatten": "recurrent layers in a pruned network",
}


def overridden() -> Iterator[tuple[str, str]]:
    """Yield the private names of others that classes of ours define anew, after the file."""
    for file in PACKAGE.rglob("*.py"):
        if file.stem in ("__main__", "infer_template"):
            continue
        name = file.relative_to(PACKAGE.parent).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
        for kind in [one for one in vars(import_module(name)).values() if getattr(one, "__module__", "") == name]:
            if not isinstance(kind, type):
                continue
            others = [base for base in kind.__mro__[1:] if not base.__module__.startswith(("lit_xai", "enum"))]
            for attribute, value in vars(kind).items():
                if (
                    PRIVATE.fullmatch(attribute)
                    and inspect.isfunction(value)
                    and any(attribute in vars(base) for base in others)
                ):
                    yield file.relative_to(PACKAGE).as_posix(), attribute


def private_names() -> dict[str, set[str]]:
    """Return the private names in use, and the files that use them."""
    where = defaultdict(set)
    for name, use in overridden():
        where[use].add(name)
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        for use in uses(ast.parse(file.read_text())):
            if (name, use) not in INHERITED:
                where[use].add(name)
    return dict(where)


def test_every_private_name_in_use_is_in_the_table():
    known = {*ATTRIBUTES, *IMPORTS}
    assert {name: files for name, files in private_names().items() if name not in known} == {}
    assert known - set(private_names()) == set(), "no longer in use"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_private_attribute_exists(name):
    owner, find, breaks = ATTRIBUTES[name]
    found = find()
    exists = re.search(rf"\b{name}\b", found) if isinstance(found, str) else hasattr(found, name)
    assert exists, f"{owner} has no {name} here, needed for: {breaks}"


@pytest.mark.parametrize("name", IMPORTS)
def test_a_private_import_exists(name):
    module, _, attribute = name.rpartition(".")
    assert hasattr(import_module(module), attribute) or import_module(name), f"needed for: {IMPORTS[name]}"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from torch._higher_order_ops import cond", "torch._higher_order_ops.cond"),
        ("import torch._inductor", "torch._inductor"),
        ("trainer._results", "_results"),
        ("getattr(module, '_hidden', None)", "_hidden"),
        ("'_hidden' in vars(module)", "_hidden"),
        ("super()._mine()", "_mine"),
        ("self._mine", None),
        ("module.__class__", None),
        ("from lit_xai.structure.kinds import _kinds", None),  # test_house.py
    ],
)
def test_the_scan_finds_private_names(line, name):
    code = f"class Ours:\n    def _mine(self):\n        {line}\n"
    assert list(uses(ast.parse(code))) == ([] if name is None else [name])
