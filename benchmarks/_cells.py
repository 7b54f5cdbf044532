"""Cells of a benchmark, measured in processes; what is done is kept, a line each: a run goes on where it stopped."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

Cell = dict[str, Any]
"""What names a cell and, once it is measured, its numbers."""


def read_cells(path: Path) -> list[Cell]:
    """Return the cells that are done; the folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def missing_cells(wanted: Sequence[Cell], done: Sequence[Cell]) -> list[Cell]:
    """Return the cells that are not done.

    Example:
        >>> missing_cells([{"seed": 0}, {"seed": 1}], [{"seed": 0, "accuracy": 0.9}])
        [{'seed': 1}]
    """
    return [cell for cell in wanted if not any(cell.items() <= line.items() for line in done)]


def run_cells(
    path: Path,
    missing: Sequence[Cell],
    measure: Callable[[Cell], Cell],
    jobs: int,
    first: Sequence[Callable[[], object]] = (),
) -> list[Cell]:
    """Measure cells in processes of one thread, append each to the file, and return all that are done.

    Args:
        path: of the file.
        missing: what is to be measured; a cell that fails is told, and the others go on.
        measure: a function that processes can be sent, such as a partial of one of a module.
        jobs: processes at a time.
        first: what is called before, in these processes, where anything is missing.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    n = 0
    with ProcessPoolExecutor(jobs) as pool, path.open("a") as file:
        for one in [pool.submit(one) for one in first if missing]:
            one.result()
        for future in as_completed([pool.submit(measure, cell) for cell in missing]):
            n += 1
            if future.exception() is not None:
                print(f"a cell failed: {future.exception()!r}", flush=True)
                continue
            print(json.dumps(future.result()), file=file, flush=True)
            print(f"{n} of {len(missing)} cells", json.dumps(future.result()), flush=True)
    return read_cells(path)
