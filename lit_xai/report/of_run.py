"""The networks of a run that has ended, and what its report says of where they come from."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor, nn

from lit_xai.attribution.explanation import explain
from lit_xai.export.callback import ModelExport
from lit_xai.export.weights import Weights
from lit_xai.network.arguments import Inputs
from lit_xai.network.calling import BatchToInputs, OutputSpec, call_network, find_logits
from lit_xai.network.selectors import ComputedInputs, LogitsAt
from lit_xai.network.spec import Network
from lit_xai.network.untouched import untouched
from lit_xai.report.provenance import environment, identity, weights_sha256
from lit_xai.retention.explained import network_of
from lit_xai.retention.explainer import Explainer
from lit_xai.runtime.file_network import FileNetwork
from lit_xai.structure.kinds import kind_of
from lit_xai.structure.recipe import Recipe
from lit_xai.trainer.access import callbacks_of, is_a

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

INT8 = "int8 file"
"""The name of a file that computes in integers."""


@dataclass
class Compared:
    """What of a run is compared.

    Args:
        networks: by name; the reference first, and last the one that is judged.
        output: the logits in their outputs.
        limits: sentences on what could not be compared.
        files: that have a checksum in the report, by name.
        exported: ONNX files of networks in torch, by the networks' names.
    """

    networks: dict[str, nn.Module]
    output: OutputSpec
    limits: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    exported: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Ending:
    """The models of a run that has ended.

    Args:
        name: of the reference.
        reference: what the others are held against, on the CPU.
        weights: the final ones.
        network: inside the module, and how it is called.
        few: inputs of it.
        compared: what of them is compared.
    """

    name: str
    reference: nn.Module
    weights: Weights
    network: Network
    few: Inputs
    compared: Compared


@dataclass(frozen=True)
class LogitsOrTensor:
    """Picks the logits in a network's output; a tensor alone, as a file gives it, is taken for them.

    Args:
        output: the logits in the output.

    Example:
        >>> pick = LogitsOrTensor("scores")
        >>> pick({"scores": torch.ones(1), "loss": torch.zeros(1)}), pick(torch.ones(1))
        (tensor([1.]), tensor([1.]))
    """

    output: OutputSpec

    def __call__(self, result: Any) -> Any:
        """Return the logits."""
        return result if isinstance(result, Tensor) else find_logits(result, self.output)


def structure_name(recipe: Recipe) -> str:
    """Return the name of a network that has been through a recipe.

    Example:
        >>> structure_name(Recipe([{"kind": "prune"}, {"kind": "prune"}])), structure_name(Recipe())
        ('pruned', 'trained')
    """
    labels = dict.fromkeys(kind_of(step).label for step in recipe.steps if step["kind"] != "fold")
    return " + ".join(labels) or "trained"


def compared(
    reference: tuple[str, nn.Module], weights: Weights, network: Network, few: Inputs, exports: Sequence[ModelExport]
) -> Compared:
    """Return the networks of a run: the reference, the final model, and the file in integers if there is one.

    Args:
        reference: its name, and the module or network.
        weights: the final ones.
        network: inside the module, and how it is called.
        few: inputs of it.
        exports: of the run, which have ended.
    """
    (name, module), final = reference, structure_name(weights.recipe)
    networks = {name: network_of(network, module), final: network.of(weights.pl_module)}
    found = Compared(networks, network.output)
    path = next((path for one in exports for path in reversed(_files(one)) if path.name.endswith(".int8.onnx")), None)
    if exports and all(one.report is None for one in exports):
        found.limits.append("The export failed: what is judged is the model in torch, and no file that is deployed.")
    if path is not None:
        output = _of_files(networks[name], few, network.output)
        if output is _UNKNOWN:
            found.limits.append(
                f"{path.name} was not compared, as output= computes logits of a tensor: what a file gives has been"
                " through that already."
            )
        else:
            found.networks[INT8], found.output = FileNetwork(path, threads=1), output
    found.files.update({path.name: path for one in exports for path in _files(one) if path.suffix == ".onnx"})
    # After quantization-aware training model.onnx holds the weights of before it.
    is_in_integers = any(step["kind"] == "quantize" for step in weights.recipe.steps)
    file = path if is_in_integers else found.files.get("model.onnx")
    if file is not None:
        found.exported[final] = file
    return found


_UNKNOWN: Any = object()


def _files(export: ModelExport) -> list[Path]:
    return [] if export.report is None else [path for path in map(Path, export.report.files) if path.is_file()]


def _of_files(network: nn.Module, inputs: Inputs, output: OutputSpec) -> OutputSpec:
    """Return what picks the logits of a network and of its file alike; a file gives nothing but logits."""
    if output is None or isinstance(output, LogitsAt):
        return output
    seen: list[Any] = []

    def pick(result: Any) -> Any:
        seen.append(result)
        return find_logits(result, output)

    with untouched(network), torch.no_grad():
        call_network(network, inputs, "forward", pick)
    return _UNKNOWN if isinstance(seen[0], Tensor) else LogitsOrTensor(output)


def usable_explainers(
    given: Sequence[Explainer] | None, found: Compared, few: Inputs
) -> tuple[list[Explainer], list[str]]:
    """Return the explainers that every network can be explained with, and sentences on those that are left out.

    Args:
        given: by the user; ``None`` for Integrated Gradients and Occlusion.
        found: the networks.
        few: inputs of them.
    """
    wanted = [Explainer("IntegratedGradients"), Explainer("Occlusion")] if given is None else list(given)
    kept, limits = [], []
    for explainer in wanted:
        options = explainer.options(few)
        try:
            for network in found.networks.values():
                # Not rehearsed, which calls the network alone: whether a file can be explained shows in doing so.
                explain(network, few, target="prediction", output=found.output, **options)
        except ValueError as error:
            is_expected = given is None and INT8 in found.networks and explainer.method == "IntegratedGradients"
            if not is_expected:
                limits.append(f"{explainer.name} was left out: {' '.join(str(error).split())}")
        else:
            kept.append(explainer)
    if INT8 in found.networks and not kept and not any(one.method == "Occlusion" for one in wanted):
        return usable_explainers([Explainer("Occlusion")], found, few)[0], limits
    return kept, limits


def inputs_by(spec: BatchToInputs, module: nn.Module) -> BatchToInputs:
    """Return what finds inputs, with a step that computes them run on this module rather than on the one in training.

    Args:
        spec: the network's inputs in a batch.
        module: on the CPU, as the batches are.
    """
    if not isinstance(spec, ComputedInputs):
        return spec
    return ComputedInputs(ref(module), spec.run, spec.name, spec.unused)


def decisions(trainer: "Trainer") -> dict[str, str]:
    """Return which decisions were taken on each split of the data.

    Args:
        trainer: after its last epoch.
    """
    found: dict[str, list[str]] = {"train": ["training"], "val": [], "test": []}
    for one in callbacks_of(trainer):
        monitor = str(getattr(one, "monitor", None) or "")
        split = found["train" if "train" in monitor else "val"]
        if monitor and is_a(one, "ModelCheckpoint"):
            split.append(f"choice of the best epoch ({monitor})")
        elif monitor and is_a(one, "EarlyStopping"):
            split.append(f"end of the training ({monitor})")
        elif type(one).__name__ == "RetentionMonitor" and one.told.get("guard"):
            found["val"].append("guard of the structural steps")
        elif isinstance(one, ModelExport) and one.given_exporter.int8:
            found["train"].append("ranges of the integers")
    return {name: ", ".join(dict.fromkeys(served)) for name, served in found.items()}


def identity_of(folder: Path, end: Ending, files: Mapping[str, Path]) -> dict[str, str]:
    """Return checksums of the models, files, configuration and recipe of a run, its command and its commit.

    Args:
        folder: of the run.
        end: of the run.
        files: further ones by name.
    """
    configs = {path.name: path for path in sorted(folder.glob("config*.yaml"))}
    recipe = json.dumps(end.weights.recipe.to_dict(), sort_keys=True)
    return {
        "judged": f"{list(end.compared.networks)[-1]}, with the weights of {end.weights.source}",
        "sha256 of the reference's weights": weights_sha256(end.reference),
        "sha256 of the final weights": weights_sha256(end.weights.pl_module),
        "sha256 of the recipe": hashlib.sha256(recipe.encode()).hexdigest(),
        **identity({**end.compared.files, **configs, **files}),
    }


def environment_of(trainer: "Trainer") -> dict[str, str]:
    """Return the machine, the versions, and how the run was set up.

    Args:
        trainer: of the run.
    """
    return {
        **environment(),
        "precision": str(trainer.precision),
        "devices": f"{trainer.world_size} of {type(trainer.accelerator).__name__}",
        "strategy": type(trainer.strategy).__name__,
        "seed": os.environ.get("PL_GLOBAL_SEED", "none was set"),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
    }


def class_names_of(trainer: "Trainer", pl_module: "LightningModule") -> list[str]:
    """Return the names of the classes, as the data module or the module has them; none where they have none."""
    owners = (getattr(trainer, "datamodule", None), pl_module)
    names: Any = next((one for one in (getattr(owner, "class_names", None) for owner in owners) if one), [])
    return [str(one) for one in names] if isinstance(names, (list, tuple)) else []
