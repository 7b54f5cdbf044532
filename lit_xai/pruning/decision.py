"""What a pruning callback decides: which step comes next, on copies of the module alone."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec
from lit_xai.network.copying import copy_network
from lit_xai.network.layers import channels
from lit_xai.network.profiling import count_macs, count_parameters
from lit_xai.network.spec import Network
from lit_xai.pruning.prunable import Prunable
from lit_xai.pruning.pruning import reach
from lit_xai.pruning.targets import Target
from lit_xai.trainer.access import without_log


@dataclass(frozen=True)
class Goal:
    """What is to be reached, and how it is measured.

    Args:
        target: what is left in the end.
        latency: the latency of a network called with these inputs, in ms.
        attempts: measurements beyond those of the bisection.
    """

    target: Target
    latency: Callable[[nn.Module, Inputs], float]

    def measure(self, network: nn.Module, inputs: Inputs, output: OutputSpec) -> float:
        """Return what the target is about, of one network."""
        if self.target.name == "target_macs":
            return float(count_macs(network, inputs, output=output))
        if self.target.name == "target_params":
            return float(count_parameters(network))
        return self.latency(network, inputs)

    @property
    def attempts(self) -> int:
        """How many measurements may come on top of the bisection's: a latency takes a second each."""
        return 3 if self.target.name == "target_latency" else 24


@dataclass(frozen=True)
class Decision:
    """One step, and what it comes to.

    Args:
        step: of a recipe, names as in the LightningModule.
        wanted: what was to be left, in the target's unit.
        found: what is left.
    """

    step: dict[str, Any]
    wanted: float
    found: float


@dataclass(frozen=True)
class Decider:
    """Decides on steps without touching the module.

    Args:
        network: what is pruned.
        goal: how far.
        options: of :class:`~lit_xai.pruning.prunable.Prunable`.
        prepared: returns an importance whose data are collected on a copy of the module that may be written to.
    """

    network: Network
    goal: Goal
    options: dict[str, Any]
    prepared: Callable[[LightningModule, nn.Module], Any]
    dense: dict[str, Any] = field(default_factory=dict)

    def decide(self, pl_module: LightningModule, inputs: Inputs, progress: float, is_rehearsal: bool) -> Decision:
        """Return the step that brings a module to where a share of ``progress`` of the plan is done.

        Args:
            pl_module: left as it is.
            inputs: of the network.
            progress: what is to be done.
            is_rehearsal: whether to make sure as well that channels are not mixed up, which depends on the network
                alone: once is enough.

        Raises:
            ValueError: the target cannot be reached, or the network cannot be traced or run without channels.
        """
        target, copied = self.goal.target, copy_network(pl_module)
        network = self.network.of(copied)
        with without_log(copied):  # type: ignore[arg-type]  # the copy of a LightningModule is one
            importance = self.prepared(copied, network)  # type: ignore[arg-type]  # as above
            by_ratio = target.name == "pruning_ratio"
            prunable = Prunable(
                network,
                inputs,
                pruning_ratio=target.amount if by_ratio else 1.0,
                importance=importance,
                dense_channels=self.dense["channels"],
                output=self.network.output,
                **self.options,
            )
            if by_ratio:
                moves, wanted, found = prunable.due(progress), progress * target.amount, progress * target.amount
            else:
                wanted = target.at(self.dense["measured"], progress)
                try:
                    moves, found = reach(
                        prunable,
                        lambda pruned: self.goal.measure(pruned, inputs, self.network.output),
                        wanted,
                        self.goal.attempts,
                    )
                except ValueError as error:
                    raise ValueError(f"{target.name}: {wanted:.6g} {error}{self._advice()}") from None
            step = prunable.step(moves)
            if is_rehearsal:
                prunable.check(moves)
        return Decision(_prefixed(step, self.network.prefix(pl_module)), wanted, found)

    def _advice(self) -> str:
        hints = [f"a smaller round_to than {self.options['round_to']}"] if self.options["round_to"] > 1 else []
        hints += ["fewer ignored_layers"] if self.options["ignored_layers"] else []
        hints += ["a larger max_pruning_ratio"] if self.options["max_pruning_ratio"] < 1 else []
        return f" Take {' or '.join(['a larger target', *hints])}."


def dense_facts(dense: nn.Module, goal: Goal, inputs: Inputs, output: OutputSpec) -> dict[str, Any]:
    """Return what targets are shares of: channels, and the target's measure, of the dense network."""
    by_ratio = goal.target.name == "pruning_ratio"
    measured = None if by_ratio else goal.measure(dense, inputs, output)
    return {"channels": channels(dense), "measured": measured}


def _prefixed(step: dict[str, Any], prefix: str) -> dict[str, Any]:
    def named(name: str) -> str:
        return f"{prefix}{name}" if name else prefix.removesuffix(".")

    kept = [[f"{prefix}{name}", *rest] for name, *rest in step["kept"]]
    return {**step, "kept": kept, "attributes": [[named(name), *rest] for name, *rest in step["attributes"]]}
