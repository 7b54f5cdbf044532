"""The report of a pruned run: sizes over the epochs, channels per layer, and a table of before and after."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lit_xai.network.calling import Inputs
from lit_xai.network.copying import copy_network
from lit_xai.network.layers import channels
from lit_xai.network.profiling import count_macs, count_parameters, size_on_disk
from lit_xai.network.spec import Network
from lit_xai.pruning.culprits import KeptWhole, as_table
from lit_xai.structure.recipe import copy_as, dense_copy, recipe_of
from lit_xai.trainer.access import logged_step, require_writable, run_folder
from lit_xai.trainer.charts import Chart
from lit_xai.trainer.logging import log_image, log_scalars, log_text
from lit_xai.trainer.monitored import monitored
from lit_xai.trainer.scheduling import Point

TAGS = {"params": "params", "MACs": "MACs", "size on disk": "bytes_on_disk", "latency": "latency_ms"}
"""Names of the table's rows in loggers; a curve can show its unit only in its name."""
OF_DENSE = {"params": "params", "MACs": "MACs", "size on disk": "size", "latency": "latency"}
CHART = Chart("cost, as a share of the dense model's", ("^compression/.+_of_dense$",))


class PruningReport:
    """Measures the network after each cut and reports it; whatever fails in here is a warning.

    Args:
        network: what is pruned.
        inputs: what it is called with.
        latency: in ms, of a network called with inputs; ``None`` to leave it out.
        dense: channels of each layer of the dense network.

    Attributes:
        kept_whole: the layers that cannot lose channels, for the table.
    """

    def __init__(
        self,
        network: Network,
        inputs: Inputs,
        latency: Callable[[nn.Module, Inputs], float] | None,
        dense: Mapping[str, int],
    ) -> None:
        self._network, self._inputs, self._latency, self._dense = network, inputs, latency, dense
        self.kept_whole: Sequence[KeptWhole] = ()
        self._first: dict[str, float] = {}
        self._now: dict[str, float] = {}
        self._left: dict[str, int] = {}
        self._metric: tuple[str, float] | None = None
        self._metric_point: Point | None = None
        self._warned = False

    def start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the dense network, and the present one if that is another."""
        self._folder = run_folder(trainer) / "compression"
        self._guarded(lambda: self._measure_first(pl_module), trainer)

    def before(self, trainer: Trainer, now: Point) -> None:
        """Store the metric from before the first cut, at this point; there is none before the first epoch or step."""
        # A resumed run that was cut already has no such metric any more: what it has now is the pruned network's.
        if self._metric_point is None and not recipe_of(trainer.lightning_module).steps:
            self._metric_point = now
            self._metric = monitored(trainer) if now.count else None

    def cut(self, trainer: Trainer, pl_module: LightningModule, now: Point, reached: str) -> None:
        """Measure, draw the channels that are left, and print the size that was reached."""
        rank_zero_info(f"StructuredPruning, {now}: {reached}.")
        self._guarded(lambda: self._show(trainer, pl_module, now, reached), trainer)
        # A long epoch may hold all of the cuts.
        if now.unit == "step":
            self.epoch(trainer)

    def epoch(self, trainer: Trainer) -> None:
        """Log the sizes, and the channels of every layer: curves of steps, from the first epoch on."""
        numbers = {f"compression/{TAGS[name]}": value for name, value in self._now.items()}
        numbers |= {
            f"compression/{tag}_of_dense": self._now[name] / self._first[name]
            for name, tag in OF_DENSE.items()
            if name in self._now and self._first.get(name)
        }
        numbers |= {f"compression/channels/{name}": float(n) for name, n in self._left.items()}
        self._guarded(lambda: log_scalars(trainer, numbers, logged_step(trainer)), trainer)

    def end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table of before and after, and save it in the run's folder."""
        self._guarded(lambda: self._table(trainer, pl_module), trainer)

    def end_again(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what was brought back to an earlier structure, and print and save the table of that."""
        self._guarded(lambda: self._measure_now(pl_module), trainer)
        self.end(trainer, pl_module)

    def _measure_first(self, pl_module: LightningModule) -> None:
        self._left = self._channels(pl_module)
        self._first = self._measured(self._network.of(dense_copy(pl_module)))
        # The same network need not be measured twice: a latency takes a second or more.
        if self._left == self._dense:
            self._now = dict(self._first)
        else:
            self._measure_now(pl_module)

    def _measure_now(self, pl_module: LightningModule) -> None:
        self._left = self._channels(pl_module)
        self._now = self._measured(self._network.of(copy_as(pl_module, recipe_of(pl_module).in_float())))

    def _channels(self, pl_module: LightningModule) -> dict[str, int]:
        return {name: n for name, n in channels(self._network.of(pl_module)).items() if name in self._dense}

    def _measured(self, network: nn.Module) -> dict[str, float]:
        copied, output = copy_network(network), self._network.output
        measures: dict[str, Callable[[], float]] = {
            "params": lambda: count_parameters(copied),
            "MACs": lambda: count_macs(copied, self._inputs, output=output),
            "size on disk": lambda: size_on_disk(copied),
        }
        if self._latency is not None:
            latency = self._latency
            measures["latency"] = lambda: latency(copied, self._inputs)
        found = {}
        for name, measure in measures.items():
            try:
                found[name] = float(measure())
            except (ImportError, ValueError) as error:  # not every network can be exported, nor everywhere
                self._warn(f"no {name}: {error}")
        return found

    def _show(self, trainer: Trainer, pl_module: LightningModule, now: Point, reached: str) -> None:
        self._left = self._channels(pl_module)
        self._now = self._measured(self._network.of(pl_module))
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its connector
            self._draw(trainer, now, reached, trainer.global_step)

    def _draw(self, trainer: Trainer, now: Point, reached: str, step: int) -> None:
        from lit_xai.render import channels_figure, channels_table, figure_to_rgb, save_png

        require_writable(self._folder)
        title = f"Channels left after the cut at {now}\n{reached}"
        pixels = figure_to_rgb(channels_figure(self._dense, self._left, title))
        png = self._folder / f"channels-{now.unit}={now.count}.png"
        save_png(pixels, png)
        log_image(trainer, "compression/channels", pixels, step, png)
        log_text(trainer, "compression/channels", channels_table(self._dense, self._left), step)

    def _table(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from lit_xai.render import before_after_table

        rows: dict[str, Any] = {name: (self._first[name], self._now.get(name)) for name in self._first}
        metric = monitored(trainer)
        if metric is not None:
            # Only the same metric can be compared; another one may have been logged since.
            known = self._metric is not None and self._metric[0] == metric[0]
            rows[metric[0]] = (self._metric[1] if known and self._metric else None, metric[1])
        table = before_after_table(rows, ("dense", "final"))
        table += f"\n\n{self._moments(trainer)}" + as_table(self.kept_whole)
        rank_zero_info(f"StructuredPruning, dense and final:\n{table}")
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its connector
            require_writable(self._folder)
            (self._folder / "summary.md").write_text(table + "\n")
            log_text(trainer, "compression/summary", table, trainer.global_step)

    def _moments(self, trainer: Trainer) -> str:
        """Return which moments of the run the table's columns are."""
        final = f"Final: after {_several(trainer.current_epoch, 'epoch')}."
        point = self._metric_point
        if point is None:
            return f"Dense: before the cuts, all or some of which are from before this run was resumed. {final}"
        if not point.count:
            return f"Dense: as the run began, before the cut at its start; the metric of that was not measured. {final}"
        when = f"after {_several(point.count, point.unit)}"
        if point.unit == "epoch" and trainer.max_epochs and trainer.max_epochs > 0:
            when = f"after {point.count} of {_several(trainer.max_epochs, 'epoch')}"
        return f"Dense: just before the first cut, {when}; trained to the end it may reach another metric. {final}"

    def _guarded(self, work: Callable[[], None], trainer: Trainer) -> None:
        # Only the first process measures: nothing below is a collective call.
        if not trainer.is_global_zero:
            return
        try:
            work()
        except Exception as error:  # a report never ends a run
            self._warn(f"{type(error).__name__}: {error}")

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            reason = " ".join(reason.split())
            rank_zero_warn(f"StructuredPruning: the report is incomplete, training continues. {reason}")


def _several(n: int, unit: str) -> str:
    return f"{n} {unit}{'s' * (n != 1)}"
