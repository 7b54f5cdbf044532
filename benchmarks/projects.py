"""Each callback at defaults on LightningModules of other people: works, a refusal, or something else.

    python benchmarks/projects.py --repositories FOLDER --out results.jsonl [--only NAME ...] [--callback NAME ...]
    python benchmarks/projects.py --out results.jsonl --table

`benchmarks/projects/` names the projects, their packages and what each is fed. A package that is not installed is
skipped, so that without any of them this prints an empty table. Every run is a process of its own, forked from one that
has imported the project's package; with a limit of --timeout seconds it is a hang. The plain run is made twice: where
its weights differ, a package draws from the system's entropy, and observers cannot be judged.

Works: a pruned network has the stated share of its MACs (its parameters, where MACs cannot be counted); at least one
layer is integer and the exported file agrees with torch, in classes too where there are labels; the teacher's term is
there and changes the weights; the attributions have the shape of an input, are finite and not constant; the exported
file agrees. Observers leave the last weights bit for bit as they are without them. A refusal is one sentence of ours
before the first step.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from projects import project as projects

GROUPS = ("time_series", "tables", "graphs", "vision", "language")
CALLBACKS = ("plain", "monitor", "pruning", "quantization", "distillation", "export")
OBSERVERS = ("monitor", "export")
EPOCHS = 3
IMPORTED = ("lit_xai", "captum.attr", "torch_pruning", "onnxscript", "onnxruntime", "torch.export", "torch._dynamo")
IMPORTED += ("torchao", "matplotlib.figure", "torch.utils.flop_counter")
"""What takes seconds to import, once rather than in each process."""


def make(name: str) -> list[Any]:
    """Return the callbacks of a run."""
    from lit_xai import (
        AttributionMonitor,
        KnowledgeDistillation,
        ModelExport,
        QuantizationAwareTraining,
        StructuredPruning,
    )

    return {
        "plain": lambda: [],
        "monitor": lambda: [AttributionMonitor()],
        "pruning": lambda: [StructuredPruning()],
        "quantization": lambda: [QuantizationAwareTraining(), ModelExport("export")],
        "distillation": lambda: [KnowledgeDistillation("ema")],
        "export": lambda: [ModelExport("export")],
    }[name]()


# --- one run ----------------------------------------------------------------------------------------------------------


def run(project: projects.Project, name: str) -> dict[str, Any]:
    """Train one project with one callback in the current folder; return what came of it."""
    import lightning.pytorch
    import pytorch_lightning

    lightning.pytorch.seed_everything(0, verbose=False)  # a module may fill a buffer or draw a split when it is made
    built = project.build()
    built.has_labels = project.labels is not None
    is_new = isinstance(built.module, lightning.pytorch.LightningModule)
    package: Any = lightning.pytorch if is_new else pytorch_lightning
    numbers: list[dict[str, float]] = []

    class Numbers(package.loggers.CSVLogger):  # type: ignore[misc]
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            numbers.append({key: float(value) for key, value in metrics.items()})

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            pass  # which not every module's can be written as YAML

        def log_image(self, *args: Any, **kwargs: Any) -> None:
            pass

    callbacks = make(name)
    work = Work()

    class Watch(package.Callback):  # type: ignore[misc]
        def on_train_batch_start(self, *args: Any) -> None:
            work.start()

        def on_train_batch_end(self, *args: Any) -> None:
            work.end()

    options = {
        "max_epochs": EPOCHS,
        "limit_train_batches": 3,
        "limit_val_batches": 1,
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
        "logger": Numbers("."),
        "callbacks": [*callbacks, Watch()] if name == "pruning" else callbacks,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        **built.trainer,
    }
    trainer = package.Trainer(**options)
    package.seed_everything(1, verbose=False)
    said: list[str] = []
    result: dict[str, Any] = {}
    started = time.perf_counter()
    with heard(said):
        try:
            trainer.fit(built.module, built.train, built.validation, datamodule=built.datamodule)
        except Exception as error:
            result = failure(error, trainer.global_step)
        else:
            if name != "plain":
                result = CHECKS[name](callbacks, numbers, built)
    result.setdefault("verdict", "works")
    weights = digest(built.module)
    if name == "plain" and result["verdict"] == "works":
        # Counted apart: operations that are counted may be other kernels, and no longer the same to the bit.
        own = project.build()
        counted = package.Trainer(**options | {"max_epochs": 1, "limit_train_batches": 1, "callbacks": [Watch()]})
        counted.fit(own.module, own.train, own.validation, datamodule=own.datamodule)
    result |= {"weights": weights, "seconds": round(time.perf_counter() - started, 1), "said": said}
    result |= {"parameters": sum(one.numel() for one in built.module.parameters()), "step_macs": work.counts}
    return result


class Work:
    """MACs of whole training steps: a count that knows nothing of networks."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._counter: Any = None

    def start(self) -> None:
        """Count from here on."""
        from torch.utils.flop_counter import FlopCounterMode

        self._counter = FlopCounterMode(display=False)
        self._counter.__enter__()

    def end(self) -> None:
        """Keep the first step's count and this one's."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.counts = [*self.counts[:1], self._counter.get_total_flops() // 2]
            self._counter = None


def digest(module: torch.nn.Module) -> str:
    """Return a checksum of all weights and buffers."""
    total = hashlib.sha256()
    for name, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            total.update(name.encode() + value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


@contextlib.contextmanager
def heard(said: list[str]) -> Iterator[None]:
    """Collect what the library says, in logs and warnings."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Handler()
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "pytorch_lightning", "lightning", "lit_xai")]
    loggers += [logging.getLogger(f"{one.name}.utilities.rank_zero") for one in loggers[:2]]
    for one in loggers:
        one.setLevel(logging.INFO)
        one.propagate = False
        one.handlers = [handler]
    before = warnings.showwarning

    def show(message: Any, category: Any, filename: str, *rest: Any) -> None:
        if "lit_xai" in filename or str(message).startswith(NAMES):
            said.append(str(message))

    warnings.showwarning = show
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            yield
    finally:
        warnings.showwarning = before


NAMES = ("AttributionMonitor", "StructuredPruning", "QuantizationAwareTraining", "KnowledgeDistillation", "ModelExport")
NAMES += ("IntegratedGradients",)


def failure(error: Exception, steps: int) -> dict[str, Any]:
    """Judge an error: a sentence of ours before the first step is a refusal."""
    frames = traceback.extract_tb(error.__traceback__)
    where = frames[-1]
    is_sentence = isinstance(error, ValueError) or type(error).__name__ == "MisconfigurationException"
    is_ours = "/lit_xai/" in where.filename and is_sentence
    text = " ".join(str(error).split())
    return {
        "verdict": "refusal" if is_ours and steps == 0 else "other",
        "detail": text if is_ours else f"{type(error).__name__}: {text}",
        "where": [f"{frame.filename.split('site-packages/')[-1]}:{frame.lineno} {frame.name}" for frame in frames[-6:]],
        "steps": steps,
    }


# --- what has to be true ----------------------------------------------------------------------------------------------


def other(detail: str) -> dict[str, Any]:
    """Return a verdict that is neither."""
    return {"verdict": "other", "detail": detail}


def check_pruning(callbacks: list[Any], numbers: list[dict[str, float]], built: projects.Built) -> dict[str, Any]:
    """Return nothing: what was reached is said in the log, and counted in whole steps."""
    return {}


def judge_pruning(result: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Return whether the share that was stated before the first step is left, and an independent count fell."""
    if result["parameters"] == plain["parameters"]:
        return other("no parameter is gone")
    reached = [re.search(r"epoch \d+: .*?\((\d+)%\)", line) for line in result["said"]]
    share = [int(one.group(1)) / 100 for one in reached if one][-1]
    plan = next(line for line in result["said"] if line.startswith("StructuredPruning cuts"))
    stated = int(re.findall(r"\((\d+)%\)", plan)[-1]) / 100
    step = result["step_macs"][-1] / plain["step_macs"][-1] if plain["step_macs"] and plain["step_macs"][-1] else None
    witness = "" if step is None else f", {step:.0%} of a whole step"
    works = share <= stated + 0.06 and (step is None or step < 0.97)
    return {"verdict": "works" if works else "partly", "detail": f"{share:.0%} left of {stated:.0%} stated{witness}"}


def check_quantization(callbacks: list[Any], numbers: list[dict[str, float]], built: projects.Built) -> dict[str, Any]:
    """Return whether integers are in the file, and it agrees.

    With labels in the batch, in at least 90% of the largest outputs as well. Of embeddings and reconstructions these
    mean nothing: of SimCLR's outputs, after six steps of training, the two largest are nearer to each other than 7 bits
    can tell (signal to noise 20 dB after 22 layers, 21 dB without training; the largest is the same in 75% and 69%).
    """
    report = callbacks[1].report
    if report is None:
        return other("trained, but no file was written")
    integers = [str(operator) for operator in report.integer_operators]
    if not integers:
        return other("no integer layer in the file")
    rows = [row for row in report.rows if row.name.startswith("int8") and row.difference is not None]
    agreement = [row.torch_agreement for row in rows if row.torch_agreement is not None and built.has_labels]
    differ = [row.difference for row in rows]
    agrees = all(one >= 0.9 for one in agreement) and all(one < 0.2 for one in differ) and bool(rows)
    detail = f"integers: {', '.join(integers)[:80]}; differ by {differ}, agree {agreement}"
    return {"verdict": "works" if agrees else "other", "detail": detail}


def check_distillation(callbacks: list[Any], numbers: list[dict[str, float]], built: projects.Built) -> dict[str, Any]:
    """Return whether the teacher's term is there."""
    terms: dict[str, list[float]] = {}
    for line in numbers:
        for key, value in line.items():
            if key.startswith("distillation/"):
                terms.setdefault(key, []).append(value)
    losses = {key: values for key, values in terms.items() if any(value > 0 for value in values)}
    if not {"logits", "features", "explanation"} & {key.rpartition("/")[2] for key in losses}:
        return other(f"no term of the teacher was logged but 0: {sorted(terms)}")
    if not all(math.isfinite(value) for values in terms.values() for value in values):
        return other("a term is not finite")
    return {"detail": ", ".join(f"{key.removeprefix('distillation/')} {max(v):.2g}" for key, v in losses.items())}


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of a batch, whatever it is."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif depth > 5:
        return
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for i, one in enumerate(value):
            yield from leaves(one, f"{path}[{i}]", depth + 1)
    elif hasattr(value, "to_dict"):
        yield from leaves(value.to_dict(), path, depth + 1)
    elif hasattr(value, "__dict__"):
        yield from leaves(vars(value), path, depth + 1)


def check_monitor(callbacks: list[Any], numbers: list[dict[str, float]], built: projects.Built) -> dict[str, Any]:
    """Return whether there are attributions of a leaf of the batch."""
    import numpy as np

    files = sorted(Path(".").rglob("attributions.npz"), key=lambda file: file.stat().st_mtime)
    if not files:
        return other("no attributions were written")
    with np.load(files[-1]) as arrays:
        maps = {name: arrays[name] for name in arrays.files if name.startswith("attributions")}
        labeled = arrays["labels"].size > 0 if "labels" in arrays.files else False
    shapes = ", ".join(f"{name}{list(value.shape)}" for name, value in maps.items())
    if not all(np.isfinite(value).all() for value in maps.values()):
        return other(f"not finite: {shapes}")
    if not any(value.std() > 0 for value in maps.values()):
        return other(f"constant: {shapes}")
    own = built.datamodule if built.datamodule is not None else built.module
    first = next(iter(built.train if built.train is not None else own.train_dataloader()))
    known = {tuple(one.shape[1:]): path for path, one in reversed(list(leaves(first)))}
    found = [known.get(tuple(value.shape[1:]), "?") for value in maps.values()]
    detail = f"{shapes} of {found}, {'labels' if labeled else 'no labels'}"
    return {"verdict": "works", "detail": detail}


def check_export(callbacks: list[Any], numbers: list[dict[str, float]], built: projects.Built) -> dict[str, Any]:
    """Return whether the file agrees."""
    report = callbacks[0].report
    if report is None:
        return other("trained, but no file was written")
    differences = [row.difference for row in report.rows if row.difference is not None]
    agrees = bool(differences) and all(one < 1e-3 for one in differences)
    return {"verdict": "works" if agrees else "other", "detail": f"differ by {[f'{one:.1g}' for one in differences]}"}


CHECKS: dict[str, Callable[..., dict[str, Any]]] = {
    "pruning": check_pruning,
    "quantization": check_quantization,
    "distillation": check_distillation,
    "monitor": check_monitor,
    "export": check_export,
}


# --- all of them ------------------------------------------------------------------------------------------------------


def outcome(project: projects.Project, name: str, timeout: float) -> dict[str, Any]:
    """Run in a fork, and in a process of its own if the fork dies: threads of libraries do not survive a fork."""
    with tempfile.TemporaryDirectory(prefix="projects-", ignore_cleanup_errors=True) as folder:
        result = forked(project, name, timeout, Path(folder))
    if not result.pop("died", False):
        return result
    with tempfile.TemporaryDirectory(prefix="projects-", ignore_cleanup_errors=True) as folder:
        return alone(project, name, timeout, Path(folder)) | {"fork": result["detail"]}


def forked(project: projects.Project, name: str, timeout: float, folder: Path) -> dict[str, Any]:
    """Run in a child process and folder, whose imports are those of this one."""
    answer, output = folder / "answer.json", folder / "output.txt"
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.setpgrp()
            os.chdir(folder)
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                answer.write_text(json.dumps(run(project, name)))
        except BaseException:
            answer.write_text(json.dumps({"verdict": "broken", "detail": traceback.format_exc(limit=-3)}))
            code = 1
        finally:
            os._exit(code)
    deadline = time.monotonic() + timeout
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return other(f"a hang of more than {timeout:g} s")
        time.sleep(0.05)
    return json.loads(answer.read_text()) if answer.exists() else died(ended[1], output) | {"died": True}


def alone(project: projects.Project, name: str, timeout: float, folder: Path) -> dict[str, Any]:
    """Run in a process that begins anew."""
    answer, output = folder / "answer.json", folder / "output.txt"
    command = [sys.executable, "-W", "ignore", str(Path(__file__).absolute()), "--alone", project.name, name]
    command += ["--out", str(answer), "--repositories", str(projects.REPOSITORIES)]
    with output.open("w") as file:
        try:
            ended = subprocess.run(command, cwd=folder, stdout=file, stderr=file, timeout=2 * timeout)
        except subprocess.TimeoutExpired:
            return other(f"a hang of more than {2 * timeout:g} s")
    return json.loads(answer.read_text()) if answer.exists() else died(ended.returncode, output)


def died(status: int, output: Path) -> dict[str, Any]:
    """Return the verdict of a process that left no answer."""
    return other(f"the process died with status {status}: {output.read_text(errors='replace')[-1500:]}")


def compare(result: dict[str, Any], plain: dict[str, Any], name: str) -> dict[str, Any]:
    """Judge by the plain run what one run alone does not show."""
    if name == "plain" and result.get("weights") != plain.get("weights"):
        return result | other("two plain runs end with other weights, so that none can be compared with them")
    if result["verdict"] not in ("works", "partly") or "weights" not in plain:
        return result
    same = result["weights"] == plain["weights"]
    if name in OBSERVERS and not same:
        return result | other(f"the weights are not those of the plain run; {result.get('detail', '')}")
    if name == "distillation" and same:
        return result | other("the weights are those of the plain run")
    if name == "pruning":
        return result | judge_pruning(result, plain)
    return result


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("projects.jsonl"), help="results, a line each; they are added")
    parser.add_argument("--repositories", type=Path, default=Path("repositories"), help="folder of OWNER+NAME folders")
    parser.add_argument("--only", nargs="*", default=[], help="projects")
    parser.add_argument("--group", nargs="*", default=list(GROUPS), choices=GROUPS, help="kinds of projects")
    parser.add_argument("--callback", nargs="*", default=list(CALLBACKS), choices=CALLBACKS)
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one run")
    parser.add_argument("--alone", nargs=2, help="a project and a callback: run it in this process, and write to --out")
    parser.add_argument("--table", action="store_true", help="print the table of --out and run nothing")
    options = parser.parse_args()
    for group in options.group:
        importlib.import_module(f"projects.{group}")
    projects.REPOSITORIES = options.repositories.absolute()
    if options.alone:
        torch.set_num_threads(1)
        options.out.write_text(json.dumps(run(projects.PROJECTS[options.alone[0]], options.alone[1])))
        return
    if not options.table:
        chosen = [one for one in projects.PROJECTS.values() if not options.only or one.name in options.only]
        run_all(chosen, options.callback, options.out, options.timeout)
    print(table(read(options.out)))


def run_all(chosen: list[projects.Project], callbacks: list[str], out: Path, timeout: float) -> None:
    """Run each project plainly and with each callback; add a line for each."""
    torch.set_num_threads(1)
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for project in chosen:
        try:
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), open(os.devnull, "w") as nowhere:
                with contextlib.redirect_stdout(nowhere):
                    project.build()  # for the imports, which each fork has then
        except ImportError as error:
            print(f"{project.name}: not installed ({error})", flush=True)
            continue
        plain: dict[str, Any] = read(out).get((project.name, "plain"), {})
        for name in ["plain", *[one for one in callbacks if one != "plain"]]:
            if name == "plain" and plain and "plain" not in callbacks:
                continue
            result = outcome(project, name, timeout)
            if name == "plain":
                plain, result = result, outcome(project, name, timeout)
            result = compare(result, plain, name)
            with out.open("a") as file:
                file.write(json.dumps({"project": project.name, "callback": name, **result}) + "\n")
            print(f"{project.name} {name}: {result['verdict']} {result.get('detail', '')[:300]}", flush=True)


def read(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the last result of each run."""
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return {(line["project"], line["callback"]): line for line in lines}


def table(results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Return projects by callbacks, and how many work."""
    names = list(dict.fromkeys(project for project, _ in results))
    rows = [f"{'project':24}" + "".join(f"{name:14}" for name in CALLBACKS)]
    for name in names:
        cells = [results.get((name, callback), {}).get("verdict", "-") for callback in CALLBACKS]
        rows.append(f"{name:24}" + "".join(f"{cell:14}" for cell in cells))
    for verdict in ("works", "partly", "refusal", "other", "broken"):
        counts = [sum(results.get((n, c), {}).get("verdict") == verdict for n in names) for c in CALLBACKS]
        rows.append(f"{verdict:24}" + "".join(f"{count:<14}" for count in counts))
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
