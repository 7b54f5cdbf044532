"""What TensorBoard shows of a whole run: one page of charts, and the run among others in its table of hyperparameters.

Lightning writes hyperparameters before the first step, of the module alone and with the metric -1, and TensorBoard
takes the first that are written. So they are written here in place of that: with what the callbacks were told, and with
the names under which the final numbers are logged once the run is over.

Private name in use: ``TensorBoardLogger._default_hp_metric``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer

from lit_xai.trainer.access import callbacks_of, is_a
from lit_xai.trainer.charts import Chart, curve, layout
from lit_xai.trainer.monitored import monitored, monitored_key
from lit_xai.trainer.told import Plain, plain

Guarded = Callable[[Any, Callable[[], None]], None]


class _Final(NamedTuple):
    """A number of the finished run: its tag, its name in the table, what it is, and the tags that it is taken from.

    Of the tags, those that begin and end like this; of several tags the first one logged, each times the factor.
    """

    tag: str
    name: str
    description: str
    sources: tuple[tuple[str, str, float], ...]


METRIC = "hp_metric"
FINAL = (
    _Final(
        "summary/retention",
        "retention",
        "share of the reference's explanations that is left: 1 all, 0 as in an untrained network",
        (("retention/", "/retention", 1.0),),
    ),
    _Final(
        "summary/flips",
        "flips",
        "share of predictions that are not the reference's",
        (("retention/flips", "", 1.0),),
    ),
    _Final(
        "summary/latency_ms",
        "latency (ms)",
        "of one call in ONNX Runtime, in milliseconds",
        (("compression/export_ms", "", 1.0), ("compression/latency_ms", "", 1.0)),
    ),
    _Final(
        "summary/size_kB",
        "size (kB)",
        "of the exported file, else of the weights, in 1000 bytes",
        (("compression/export_kB", "", 1.0), ("compression/bytes_on_disk", "", 1e-3)),
    ),
)


class RunPage:
    """The page of one run in one Trainer.

    Args:
        trainer: in the ``setup`` of ``fit``.
        guarded: calls a function for a logger, and outlives its errors.
    """

    def __init__(self, trainer: Trainer, guarded: Guarded) -> None:
        self._guarded = guarded
        self._loggers = [one for one in trainer.loggers if is_a(one, "TensorBoardLogger")]
        self._logged: dict[str, float] = {}
        self._has_layout = self._has_table = False
        for logger in self._loggers:
            _wrap(logger, partial(self._begin_table, trainer, logger))

    def log(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Keep the last value of each number, and write the charts as soon as it is known what the run monitors."""
        self._logged.update(metrics)
        if not self._has_layout and monitored_key(trainer) is not None:
            self._write_layout(trainer)

    def end(self, trainer: Trainer) -> None:
        """Write the final numbers, and what no earlier moment has led to."""
        for logger in self._loggers:
            _unwrap(logger)
        if not self._has_layout:
            self._write_layout(trainer)
        numbers = self._final(trainer)
        for logger in self._loggers:
            if _wants_table(logger):
                if not self._has_table:
                    self._begin_table(trainer, logger, {})
                self._guarded(logger, partial(_write_end, logger, numbers, trainer.global_step))

    def _final(self, trainer: Trainer) -> dict[str, float]:
        found = {one.tag: value for one in FINAL if (value := _taken(one, self._logged)) is not None}
        metric = monitored(trainer)
        # Another metric than the monitored one would stand under its name; one of the user's own comes first.
        if metric is not None and metric[0] == monitored_key(trainer) and METRIC not in trainer.logged_metrics:
            found[METRIC] = metric[1]
        return found

    def _write_layout(self, trainer: Trainer) -> None:
        self._has_layout = True
        charts: list[Chart] = []
        key = monitored_key(trainer)
        if key is not None:
            charts.append(Chart(key, (curve(key),)))
        for callback in callbacks_of(trainer):
            charts += getattr(callback, "charts", ())
        if charts:
            for logger in self._loggers:
                self._guarded(logger, partial(_write_charts, logger, charts))

    def _begin_table(self, trainer: Trainer, logger: Any, params: Mapping[str, Any]) -> None:
        self._guarded(logger, partial(self._write_table, trainer, logger, params))

    def _write_table(self, trainer: Trainer, logger: Any, params: Mapping[str, Any]) -> None:
        from tensorboard.plugins.hparams import summary_v2 as hp

        self._has_table = True
        values = {**_flat(params), **_told(trainer)}
        key = monitored_key(trainer) or "the first metric of validation"
        metrics = [hp.Metric(METRIC, display_name=f"final {key}", description="what the run monitors, at its end")]
        metrics += [hp.Metric(one.tag, display_name=one.name, description=one.description) for one in FINAL]
        writer = logger.experiment._get_file_writer()
        writer.add_summary(hp.hparams_config_pb([hp.HParam(name) for name in values], metrics))
        # A name of its own: otherwise runs with the same values, of several seeds say, would be shown as one.
        writer.add_summary(hp.hparams_pb(values, trial_id=f"{logger.name}/{logger.version}"))


_pages: WeakKeyDictionary[Trainer, RunPage] = WeakKeyDictionary()


def begin_page(trainer: Trainer, guarded: Guarded) -> None:
    """Begin the page of a fit, on the first process and once for all callbacks of the library."""
    if trainer.is_global_zero and trainer.state.fn == "fit" and trainer not in _pages:
        _pages[trainer] = RunPage(trainer, guarded)


def page_of(trainer: Trainer) -> RunPage | None:
    """Return the page of a fit."""
    return _pages.get(trainer)


def end_page(trainer: Trainer) -> None:
    """End the page, and do nothing the second time."""
    page = _pages.pop(trainer, None)
    if page is not None:
        page.end(trainer)


def _wants_table(logger: Any) -> bool:
    # Who turns the metric off writes hyperparameters by hand, and TensorBoard takes the first.
    return bool(getattr(logger, "_default_hp_metric", True))


def _wrap(logger: Any, write: Callable[[Mapping[str, Any]], None]) -> None:
    """Have the first ``log_hyperparams`` of a logger, which is Lightning's, write ours in place of its metric of -1."""
    if not _wants_table(logger):
        return
    original = logger.log_hyperparams

    def log_hyperparams(params: Any, metrics: Any = None, *args: Any, **options: Any) -> None:
        _unwrap(logger)
        if metrics is None:
            write(vars(params) if not isinstance(params, Mapping) else params)
            metrics = {}
        original(params, metrics, *args, **options)

    log_hyperparams.is_wrapped = True  # type: ignore[attr-defined]  # functions take attributes
    logger.log_hyperparams = log_hyperparams


def _unwrap(logger: Any) -> None:
    if hasattr(vars(logger).get("log_hyperparams"), "is_wrapped"):
        del logger.log_hyperparams


def _write_charts(logger: Any, charts: Sequence[Chart]) -> None:
    logger.experiment.add_custom_scalars(layout(charts))


def _write_end(logger: Any, numbers: Mapping[str, float], step: int) -> None:
    from torch.utils.tensorboard.summary import hparams

    if numbers:
        logger.log_metrics(dict(numbers), step=step)
    logger.experiment._get_file_writer().add_summary(hparams({}, {})[2])


def _taken(final: _Final, logged: Mapping[str, float]) -> float | None:
    for begin, end, factor in final.sources:
        for tag, value in logged.items():
            if tag.startswith(begin) and tag.endswith(end) and (end or tag == begin):
                return value * factor
    return None


def _told(trainer: Trainer) -> dict[str, Plain]:
    """Return what the callbacks of the library were told, by ``Name.argument``."""
    return {
        f"{type(callback).__name__}.{name}": value
        for callback in callbacks_of(trainer)
        for name, value in getattr(callback, "told", {}).items()
    }


def _flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Plain]:
    """Return nested hyperparameters as plain values, as Lightning names them.

    Example:
        >>> _flat({"lr": 0.1, "net": {"width": 8}, "nothing": None})
        {'lr': 0.1, 'net/width': 8, 'nothing': 'None'}
    """
    found: dict[str, Plain] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}/")
        elif not str(name).startswith("_"):  # Lightning's own notes on where the values are from
            found[f"{prefix}{name}"] = plain(value)
    return found
