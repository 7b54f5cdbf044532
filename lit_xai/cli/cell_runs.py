"""What a cell of a study consists of: ``lit-xai fit``, ``compare`` and ``validate``, in a process of its own."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from lit_xai.report.estimates import Estimate, estimate
from lit_xai.report.measured import EXPLANATIONS, MEASURED, evidence_of
from lit_xai.report.record import Record, read_json
from lit_xai.report.writing import MANIFEST
from lit_xai.retention.record import write_json
from lit_xai.retention.requirements import Requirement
from lit_xai.structure.schema import check_schema, closed
from lit_xai.study.settings import Settings

CONFIG, LOG, FITTED = "cell.yaml", "log.txt", "fitted.json"
"""Files of a cell's folder."""

FOLDERS = {"val": "comparison", "test": "test"}
"""Folders of a cell's folder, with the report of its comparison, by the data."""

POLL = 0.25
"""Seconds between two looks at a process."""


Measured = dict[str, Estimate | str]


class CellError(Exception):
    """A stage of a cell failed; the text says why, as the end of a sentence."""


@closed
class Epoch(TypedDict):
    """What a run wrote down after an epoch."""

    epoch: int
    of: int | None
    checkpoint: str
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class CellRun:
    """A run in a folder of a study, done in a process of its own, which continues where another process left it.

    Args:
        folder: of the run.
        settings: of the study.
        reference: what it is held against.
        alive: called again and again while the process runs.
    """

    folder: Path
    settings: Settings
    reference: Path | None = None
    alive: Callable[[], object] = lambda: None

    def fit(self) -> Path:
        """Train, or finish training, and return the checkpoint to measure.

        Raises:
            CellError: the run failed.
        """
        if not self.folder.joinpath(FITTED).exists():
            self._run("fit")
        return fitted(self.folder)

    def measure(self) -> Measured:
        """Train, and return what is measured of the run on validation data, by name.

        Raises:
            CellError: the run or a measurement failed.
        """
        held = ["val"] if self.reference is not None else []
        logged = ["validate"] if set(self.settings.objectives) - set(MEASURED) else []
        self._run("fit", *held, *logged)
        found: Measured = estimates(Record.load(self.folder / FOLDERS["val"])) if held else {}
        if logged:
            found |= {name: _exact(one) for name, one in read_validation(self.folder).items() if one is not None}
        return found

    def test(self) -> Measured:
        """Return what is measured of the run on test data, by name, which is read only once.

        Raises:
            CellError: the measurement failed.
        """
        if not self.folder.joinpath(FOLDERS["test"], MANIFEST).exists():
            self._run("test")
        return estimates(Record.load(self.folder / FOLDERS["test"]))

    def validate(self) -> dict[str, float | None]:
        """Return what validation logs of the module as it is built.

        Raises:
            CellError: it failed.
        """
        self._run("validate")
        return read_validation(self.folder)

    def _run(self, *stages: str) -> None:
        """Run stages in a process; what they print is added to the folder's log."""
        job: Job = {
            "folder": str(self.folder),
            "dirpath": self.settings.dirpath,
            "reference": None if self.reference is None else str(self.reference),
            "objectives": list(self.settings.objectives),
            "compare": self.settings.compare,
            "stages": list(stages),
        }
        with self.folder.joinpath(LOG).open("ab") as log:
            start = log.tell()
            command = [sys.executable, "-m", "lit_xai.cli.child"]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)
            assert child.stdin is not None
            try:
                with contextlib.suppress(BrokenPipeError):  # it ended at once: its log tells why
                    child.stdin.write(json.dumps(job).encode() + b"\n")
                    child.stdin.flush()
                while child.poll() is None:
                    self.alive()
                    time.sleep(POLL)
            finally:
                child.kill()
                child.wait()
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
        if child.returncode:
            raise CellError(_reason(self.folder / LOG, start, child.returncode))


class Job(TypedDict):
    """What a process is to do in a folder: what it needs to know of the study, and the stages, each done only once."""

    folder: str
    dirpath: str
    reference: str | None
    objectives: list[str]
    compare: dict[str, Any]
    stages: list[str]


def do(job: Job) -> int:
    """Do the stages of a job in this process, and return the exit code: 0, or that of the first that failed.

    Args:
        job: as :class:`CellRun` writes it.
    """
    from filelock import FileLock

    folder = Path(job["folder"])
    with FileLock(folder / ".lock"):
        for stage in job["stages"]:
            own = {"fit": _fit, "validate": _validate}.get(stage)
            if code := own(folder) if own else _compare(job, stage):
                return code
    return 0


def _fit(folder: Path) -> int:
    if folder.joinpath(FITTED).exists():
        return 0
    epochs = read_epochs(folder)
    if not epochs or epochs[-1]["of"] != epochs[-1]["epoch"] + 1:
        last = folder / "last.ckpt"
        resumed = ["--ckpt_path", str(last)] if last.exists() else []
        if code := _main(["fit", "--config", str(folder / CONFIG), *resumed]):
            return code
        epochs = read_epochs(folder)
    if not epochs:
        sys.stderr.write("lit-xai: error: the run ended before its first epoch did.\n")
        return 1
    write_json(folder / FITTED, {"checkpoint": epochs[-1]["checkpoint"]})
    return 0


def _validate(folder: Path) -> int:
    if folder.joinpath("validation.json").exists():
        return 0
    checkpoint = ["--ckpt_path", str(fitted(folder))] if folder.joinpath(FITTED).exists() else []
    return _main(["validate", "--config", str(folder / CONFIG), *checkpoint])


def _compare(job: Job, split: str) -> int:
    from filelock import FileLock

    folder = Path(job["folder"])
    goal = folder / FOLDERS[split]
    if goal.joinpath(MANIFEST).exists():
        return 0
    given = compare_options(job["objectives"], job["compare"], split)
    options = [f"--{name}={one if isinstance(one, str) else json.dumps(one)}" for name, one in given.items()]
    files = ["--config", str(folder / CONFIG), "--dirpath", str(goal), "--overwrite=true"]
    # Two that measure a latency at once would measure each other.
    alone = FileLock(Path(job["dirpath"]) / ".latency.lock") if given["rounds"] else contextlib.nullcontext()
    with alone:
        return _main(["compare", str(job["reference"]), str(fitted(folder)), *files, *options])


def _main(arguments: Sequence[str]) -> int:
    from lit_xai.cli import main

    try:
        return main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def fitted(folder: Path) -> Path:
    """Return the checkpoint of a trained run that is to be measured.

    Args:
        folder: of the run.
    """
    return folder / str(read_json(folder / FITTED)["checkpoint"])


def compare_options(objectives: Iterable[str], given: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Return the options of a cell's comparison: what no objective needs is not measured, unless it is asked for.

    Args:
        objectives: of the study.
        given: options that the study gives.
        split: ``"val"`` or ``"test"``.

    Example:
        >>> compare_options(["accuracy"], {"n": 64}, "val")
        {'rounds': 0, 'explainers': [], 'n': 64, 'split': 'val'}
    """
    names = set(objectives)
    own: dict[str, Any] = {"rounds": 21 if "latency" in names and split == "val" else 0}
    own["explainers"] = ["IntegratedGradients"] if names & set(EXPLANATIONS) else []
    return {**own, **given, "split": split}


def estimates(record: Record) -> Measured:
    """Return all that a record says of the candidate, by name; of the latency its ratio to the reference's.

    Args:
        record: what was measured. Of what was not, a text says why.

    Example:
        >>> import numpy as np
        >>> from lit_xai.report.record import Candidate
        >>> networks = Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2)[[0, 0]], {"MACs": 12.0})
        >>> found = estimates(Record(networks, "classes", np.array([0, 1])))
        >>> found["accuracy"]["value"], found["macs"]["value"], found["latency"]
        (0.5, 12.0, 'the latency was not measured')
    """
    asked = {name: Requirement(name, "ratio<=" if name == "latency" else "<=", 1.0) for name in MEASURED}
    answers = zip(asked, evidence_of(record, asked.values()).values(), strict=True)
    return {name: one if isinstance(one, str) else estimate(one) for name, one in answers}


def read_epochs(folder: Path) -> list[Epoch]:
    """Return what a run wrote down after each epoch; a line that was cut off is left out."""
    try:
        lines = (folder / "epochs.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found: list[Epoch] = []
    for line in lines:
        try:
            plain = json.loads(line)
            check_schema(plain, Epoch, "an epoch")
        except ValueError:
            continue
        found.append(plain)
    return found


def read_validation(folder: Path) -> dict[str, float | None]:
    """Return the metrics that ``lit-xai validate`` logged."""
    plain = read_json(folder / "validation.json")
    check_schema(plain, dict[str, float | None], f"file {folder / 'validation.json'}")
    return dict(plain)


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write the configuration of a cell into its folder."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def cell_config(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a configuration for a run in a folder: one device, its log there, and a checkpoint after every epoch.

    A report is left out, as it reads the test samples, which are for the chosen cells.

    Args:
        config: a whole configuration; is modified.
        folder: of the run.
    """
    log = {"save_dir": str(folder), "name": "", "version": ""}
    checkpoint = {"class_path": "lit_xai.cli.cell.CellCheckpoint", "init_args": {"dirpath": str(folder)}}
    trainer = config["trainer"]
    own = [one for one in trainer.get("callbacks") or [] if not str(one.get("class_path")).endswith(".ModelReport")]
    trainer["callbacks"] = [*own, checkpoint]
    trainer |= {
        "default_root_dir": str(folder),
        "logger": {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": log},
        "devices": 1,
        "num_nodes": 1,
        "enable_checkpointing": None,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return config | {"ckpt_path": None}


def _exact(value: float) -> Estimate:
    return {"value": value, "low": None, "high": None, "n": 0}


def _reason(log: Path, start: int, code: int) -> str:
    """Return in one sentence why a command failed."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    lines = [" ".join(line.split()) for line in lines if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if line.startswith("lit-xai: error: ")]
    if errors:
        return errors[-1].rstrip(".")
    if code < 0:
        return f"it was killed by signal {-code}; {log} has its output"
    return f"{lines[-1][:300]}; {log} has its output" if lines else f"exit code {code}"
