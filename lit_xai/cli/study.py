"""``lit-xai study``: a search over compressions of the user's own module, by Optuna."""

import sys
from collections.abc import Sequence

from lit_xai.cli.configs import find_study
from lit_xai.network.packages import require

HELP = """\
lit-xai study: train and measure many compressions of your module, and show which of them no other beats.

  lit-xai study study.yaml     begin, continue, or help: run it again, or in other terminals and on other machines
  lit-xai study pruned_digits  an example: six networks on real digits

study.yaml:
  configs: [base, digits, pruning]             your configurations, stacked as by `fit --config`
  search:                                      dotted names of options, and their values
    trainer.callbacks.StructuredPruning.target_macs: [0.5, 0.25]
    model.optimizer.lr: {low: 0.001, high: 0.1, log: true}
    configs: [[], [distillation]]              stacked on those above
  objectives: {accuracy: max, latency: min}    what `compare` measures (also retention, size, macs, flips ..),
                                               or a metric that your module logs, such as val/loss
  reference: dense.ckpt                        what cells are held against, or configs to train it from
  sampler: grid                                or tpe, nsga2, with n_trials: 50
  options: {init_from: reference}              of every cell
  dirpath: study                               the folder, and storage: of its database (SQLite in the folder)
  compare: {n: 128}                            options of `compare`; also seed, timeout, grace, test: false

The folder holds study.html, study.csv, study.json, and a folder for each cell. `optuna-dashboard` opens
the database."""


def study(arguments: Sequence[str]) -> int:
    """Work on a study until nothing of it is left; return 0, or 1 if that failed for a reason explained in one line.

    Args:
        arguments: the command and its file.
    """
    try:
        require("lit-xai study", "optuna", extra="study")
        from lit_xai.cli.studying import Worker, read_study

        return Worker(read_study(find_study(arguments[1]))).work()
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Of a database that is full, or went away.
        of_database = type(error).__module__.partition(".")[0] in ("optuna", "sqlalchemy")
        if not isinstance(error, (ImportError, OSError, ValueError)) and not of_database:
            raise
        sys.stderr.write(f"lit-xai: error: {' '.join(str(error).split())}\n")
        return 1


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse anything but one file.

    Args:
        arguments: the command and its options, as typed.

    Raises:
        ValueError: there is none, or more than one argument.

    Example:
        >>> check_arguments(["study"])
        Traceback (most recent call last):
        ...
        ValueError: study expected one file, study.yaml, but got nothing: see `lit-xai study --help`.
    """
    if len(arguments) != 2 or arguments[1].startswith("-"):
        given = " ".join(arguments[1:]) or "nothing"
        raise ValueError(f"study expected one file, study.yaml, but got {given}: see `lit-xai study --help`.")
