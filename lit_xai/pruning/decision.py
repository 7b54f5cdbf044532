"""The decisions of a pruning callback: which step comes next, computed on copies of the module alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule
from torch import nn

from lit_xai.network.calling import Inputs, OutputSpec
from lit_xai.network.check import check_integer, refusal
from lit_xai.network.copying import copy_network
from lit_xai.network.layers import channels
from lit_xai.network.profiling import count_macs, count_parameters
from lit_xai.network.spec import Network
from lit_xai.pruning.culprits import CutError, KeptWhole, that_stay
from lit_xai.pruning.moves import Move
from lit_xai.pruning.prunable import Prunable, PruningOptions, dense_widths
from lit_xai.pruning.pruning import TOLERANCE, reach
from lit_xai.pruning.targets import Target
from lit_xai.runtime.latency import network_latency
from lit_xai.runtime.runtimes import find_runtime
from lit_xai.structure.kinds import Step
from lit_xai.trainer.access import without_log


@dataclass(frozen=True)
class Latency:
    """The latency of a network in a runtime, or by a measure of the user's.

    Args:
        threads: of the runtime.
        batch_size: of the inputs.
        measure: from an ONNX file's path to milliseconds, or its import path.
        output: where the logits are.
        runtime: its name.

    Raises:
        ValueError: names the argument that is wrong.
    """

    threads: int = 1
    batch_size: int = 1
    measure: str | Callable[[Any], float] | None = None
    output: OutputSpec = None
    runtime: str = "onnxruntime"

    def __post_init__(self) -> None:
        if find_runtime(self.runtime) != find_runtime("onnxruntime") and self.measure is not None:
            raise refusal("runtime", "its default beside measure, which runs the file by itself", self.runtime)
        check_integer("threads", self.threads)
        check_integer("batch_size", self.batch_size)

    def __call__(self, network: nn.Module, inputs: Inputs) -> float:
        """Return milliseconds."""
        return network_latency(
            network,
            inputs,
            output=self.output,
            threads=self.threads,
            batch_size=self.batch_size,
            measure=self.measure,
            runtime=self.runtime,
        ).milliseconds

    def __str__(self) -> str:
        """What it is measured with."""
        if self.measure is not None:
            where = f"by {self.measure if isinstance(self.measure, str) else 'measure'}"
        else:
            runtime = find_runtime(self.runtime)
            where = f"in {runtime.label} {runtime.version}, floats in float32"
        return f"{where}, {self.threads} thread{'s' if self.threads > 1 else ''}, batch {self.batch_size}"


@dataclass(frozen=True)
class Goal:
    """The target of a run, and how it is measured.

    Args:
        target: the size to reach at the end of the plan.
        latency: the latency of a network called with these inputs, in ms.
        least: the share of the dense network that has to go, where the lowest size within reach does instead of a
            target out of reach; ``None``: that is refused.
    """

    target: Target
    latency: Callable[[nn.Module, Inputs], float]
    least: float | None = None

    def measure(self, network: nn.Module, inputs: Inputs, output: OutputSpec) -> float:
        """Return a network's size in the target's unit."""
        if self.target.name == "target_macs":
            return float(count_macs(network, inputs, output=output))
        if self.target.name == "target_params":
            return float(count_parameters(network))
        return self.latency(network, inputs)

    @property
    def attempts(self) -> int:
        """The number of measurements on top of the bisection's: a latency takes a second each."""
        return 3 if self.target.name == "target_latency" else 24


@dataclass(frozen=True)
class Decision:
    """One step, and the size that it leads to.

    Args:
        step: of a recipe, names as in the LightningModule.
        wanted: the size to reach, in the target's unit; for a ratio the share of channels to remove.
        found: the size that is reached; for a ratio the share that is gone, of the channels of layers that can be cut.
        unranked: layers that the importance gave no ranking for.
        kept_whole: layers that cannot lose channels, names as in the network.
        lowest: the smallest size that can be reached without them, ``None`` where that was not measured.
        is_lowest: whether the step leads there because the target is out of reach.
        staying: where it is, all layers that stay whole.
    """

    step: Step
    wanted: float
    found: float
    unranked: tuple[str, ...] = ()
    kept_whole: tuple[KeptWhole, ...] = ()
    lowest: float | None = None
    is_lowest: bool = False
    staying: tuple[KeptWhole, ...] = ()

    @property
    def is_near(self) -> bool:
        """True if the target is reached, within the tolerance."""
        return abs(self.found - self.wanted) <= TOLERANCE * self.wanted


@dataclass(frozen=True)
class DenseFacts:
    """The dense network's sizes, which targets are shares of.

    Args:
        channels: of each layer.
        measured: in the target's unit; 1 for a ratio, which counts channels.
    """

    channels: dict[str, int]
    measured: float = 1.0

    @classmethod
    def of(cls, dense: nn.Module, goal: Goal, inputs: Inputs, output: OutputSpec) -> "DenseFacts":
        """Measure a dense network."""
        by_ratio = goal.target.name == "pruning_ratio"
        return cls(dense_widths(dense, inputs), 1.0 if by_ratio else goal.measure(dense, inputs, output))


@dataclass(frozen=True)
class Decider:
    """Decides on steps without touching the module.

    Args:
        network: the network that is pruned, and how it is called.
        goal: the target and its measure.
        prepared: returns an importance whose data are collected on a copy of the module that may be written to.
        dense: sizes of the dense network.
    """

    network: Network
    goal: Goal
    prepared: Callable[[LightningModule, nn.Module], Any]
    dense: DenseFacts

    def decide(
        self,
        pl_module: LightningModule,
        inputs: Inputs,
        options: PruningOptions,
        progress: float,
        is_rehearsal: bool = False,
        kept_whole: Sequence[KeptWhole] = (),
    ) -> Decision:
        """Return the step that brings a module to where a share of ``progress`` of the plan is done.

        Args:
            pl_module: left unchanged.
            inputs: of the network.
            options: which channels can be removed.
            progress: the share of the plan to reach.
            is_rehearsal: whether to find out as well where channels would be mixed up; that depends on the network
                alone, so once is enough.
            kept_whole: what earlier decisions found that cannot be cut.

        Raises:
            ValueError: the network cannot be traced, has nothing that can be cut, or cannot reach the target with what
                can.
        """
        target, copied = self.goal.target, copy_network(pl_module)
        by_ratio = target.name == "pruning_ratio"
        # The copy of the whole LightningModule, since an importance may need its training step.
        network = self.network.of(copied)
        with without_log(copied):  # type: ignore[arg-type]  # the copy of a LightningModule is one
            prunable = Prunable(
                network,
                inputs,
                # For a size, every channel may go: the search stops at the target. For a ratio, the plan ends at it.
                pruning_ratio=target.amount if by_ratio else 1.0,
                importance=self.prepared(copied, network),  # type: ignore[arg-type]  # as above
                dense_channels=self.dense.channels,
                kept_whole=kept_whole,
                output=self.network.output,
                **vars(options),
            )
            # Half of every group, whatever the plan takes of it: what is found here holds for each later cut.
            if is_rehearsal:
                prunable.take(prunable.halved, exact=True)
            found = wanted = progress * target.amount if by_ratio else target.at(self.dense.measured, progress)

            is_lowest = False

            def choose() -> list[Move]:
                nonlocal found, is_lowest
                if by_ratio:
                    return prunable.due(progress)
                moves, found, is_lowest = self._reach(prunable, inputs, wanted, options)
                return moves

            moves, step = prunable.take(choose)
            if by_ratio:  # rounded widths, and layers that stay whole, lead elsewhere than to what is wanted
                found = self._removed(prunable, moves)
            lowest = None
            if is_rehearsal and prunable.kept_whole and not by_ratio:
                with prunable.pruned(prunable.moves) as smallest:
                    lowest = self.goal.measure(smallest, inputs, self.network.output)
        return Decision(
            _prefixed(step, self.network.prefix(pl_module)),
            wanted,
            found,
            tuple(prunable.unranked),
            tuple(prunable.kept_whole),
            lowest,
            is_lowest,
            tuple(prunable.staying()) if is_lowest else (),
        )

    def _removed(self, prunable: Prunable, moves: Sequence[Move]) -> float:
        """Return the share of the dense network's channels that is gone, of the layers that can be cut."""
        layers = {name for group in prunable.groups for name in group.layers} & self.dense.channels.keys()
        with prunable.pruned(moves) as cut:
            left = channels(cut)
        return 1 - sum(left[name] for name in layers) / (sum(self.dense.channels[name] for name in layers) or 1)

    def _reach(
        self, prunable: Prunable, inputs: Inputs, wanted: float, options: PruningOptions
    ) -> tuple[list[Move], float, bool]:
        def measure(pruned: nn.Module) -> float:
            return self.goal.measure(pruned, inputs, self.network.output)

        try:
            return *reach(prunable, measure, wanted, self.goal.attempts), False
        except CutError:
            raise
        except ValueError as error:
            if self.goal.least is not None:
                with prunable.pruned(prunable.moves) as smallest:
                    lowest = measure(smallest)
                if lowest <= (1 - self.goal.least) * self.dense.measured:
                    return prunable.moves, lowest, True
            # Only settings that keep channels from being removed can help.
            advice = f"Take {' or '.join(['a larger target', *ways_to_remove_more(options)])}."
            whole = that_stay(prunable.staying())
            raise ValueError(f"{self.goal.target.name}: {wanted:.6g} {error}{whole} {advice}") from None


def ways_to_remove_more(options: PruningOptions) -> list[str]:
    """Return what to change, in words, in the settings that keep channels from being removed.

    Example:
        >>> ways_to_remove_more(PruningOptions(round_to=8, ignored_layers=["stem"]))
        ['a smaller round_to than 8', 'fewer ignored_layers']
    """
    hints = [f"a smaller round_to than {options.round_to}"] if options.round_to > 1 else []
    hints += ["fewer ignored_layers"] if options.ignored_layers else []
    return hints + (["a larger max_pruning_ratio"] if options.max_pruning_ratio < 1 else [])


def _prefixed(step: Step, prefix: str) -> Step:
    def named(name: str) -> str:
        return f"{prefix}{name}" if name else prefix.removesuffix(".")

    kept = [[f"{prefix}{name}", *rest] for name, *rest in step["kept"]]
    return {**step, "kept": kept, "attributes": [[named(name), *rest] for name, *rest in step["attributes"]]}
