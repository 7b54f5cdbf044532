"""``lit-xai compare``, ``report`` and ``check``: two models held against each other, and the verdict on them."""

import argparse
import sys
from collections.abc import Sequence

HELP = """\
lit-xai compare: hold one model against another on your test data, without training, and write a report.

  lit-xai compare REFERENCE CANDIDATE --config data.yaml [options]

  REFERENCE, CANDIDATE    checkpoints (also of pruned and quantized models) or ONNX files, ours or anybody's
  --config FILE           with `data:`, and with `model:` where a checkpoint is compared; stacks
  --require.NAME TEXT     accuracy "drop<=1 %", retention ">=0.4", flips "<=2 %", latency "ratio<=0.25" ...
  --dirpath FOLDER        where the report goes (comparison)
  --split test|val        the data (test)
  --groups ..             the group of each sample in a batch, for who was hurt: a key, an index
  --clusters ..           samples that belong together, such as those of a patient
  --batch_to_inputs ..    the model's inputs in a batch       --batch_to_target ..  the labels
  --output ..             the logits in its output            --module NAME  the network in the LightningModule
  --n N                   samples to explain (256)            --rounds N     of the latency, 0 for none (21)
  --samples ..            show, maps_only (explanations without inputs) or none (no sample in the folder)
  --adverse_class ..      of a table, the class whose reason codes are compared: a name, a number
  --corruption false      leave out noise, blur, shift and missing values
  --faithfulness false    leave out whether explanations are faithful to the network that they explain
  --overwrite             replace an earlier comparison
  --sign KEY              sign its manifest with an SSH key

The folder holds report.html, report.json, model_card.md, and the numbers of every sample they are made of.
The exit code is that of `lit-xai check FOLDER`: 0 passed, 10 failed, 11 inconclusive (0 without requirements)."""

CHECK_HELP = """\
lit-xai check: the verdict on a comparison, from its numbers of every sample.

  lit-xai check RUN [--format text|json|junit] [--verify] [--digest SHA] [--signers FILE]

  RUN             the folder of a report, or one with a report somewhere below it
  --verify        rebuild report and verdict from the samples' numbers and compare byte for byte, then all hashes
  --digest SHA    and compare the root digest with one that was kept elsewhere
  --signers FILE  and ask for a signature by one of those whom ssh-keygen's file of allowed signers lists

The exit code is 0 passed, 10 failed, 11 inconclusive, 12 changed since it was written, or not signed."""

REPORT_HELP = """\
lit-xai report: write the report of a run anew, from its numbers of every sample; or compare several runs.

  lit-xai report RUN [--sign KEY]
  lit-xai report RUN RUN ... [--dirpath FOLDER] [--overwrite]

  RUN               the folder of a report, or one with a report somewhere below it
  --sign KEY        sign its manifest with an SSH key
  --dirpath FOLDER  where a comparison goes (runs): comparison.html, comparison.csv and comparison.json
  --overwrite       replace an earlier comparison

Runs are compared that were judged on the same test samples: a table, plots, and which are on the Pareto front."""

_FLAGS = ("--overwrite",)


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as LightningCLI takes them: the two models as options, flags with a value.

    Args:
        arguments: the command and its options, as typed.

    Raises:
        ValueError: there are not two models.

    Example:
        >>> spelled_out(["compare", "a.ckpt", "b.onnx", "--config", "data.yaml"])
        ['compare', '--reference', 'a.ckpt', '--candidate', 'b.onnx', '--config', 'data.yaml']
    """
    command, *rest = arguments
    models = []
    while rest and not rest[0].startswith("-"):
        models.append(rest.pop(0))
    named = {argument.partition("=")[0] for argument in rest}
    if "--print_config" not in named and len(models) + len(named & {"--reference", "--candidate"}) != 2:
        raise ValueError(f"compare needs two models, REFERENCE and CANDIDATE, before its options, but got {models}.")
    spelled = [command]
    for name, value in zip(("--reference", "--candidate"), models, strict=False):
        spelled += [name, value]
    for place, argument in enumerate(rest):
        following = rest[place + 1] if place + 1 < len(rest) else ""
        is_flag = argument in _FLAGS and following.lower() not in ("true", "false")
        spelled.append(f"{argument}=true" if is_flag else argument)
    return spelled


def compare(arguments: Sequence[str]) -> int:
    """Compare two models and print the verdict; return the exit code.

    Args:
        arguments: the command and its options, spelled out.
    """
    from lit_xai.cli.comparing import CompareCLI
    from lit_xai.cli.run import start

    cli = start(arguments, CompareCLI)
    return 1 if cli is None else cli.trainer.finish()


def check(arguments: Sequence[str]) -> int:
    """Print the verdict on a folder and return the exit code.

    Args:
        arguments: the command and its options.
    """
    parser = argparse.ArgumentParser("lit-xai check", add_help=False, allow_abbrev=False)
    parser.add_argument("folder")
    parser.add_argument("--format", choices=("text", "json", "junit"), default="text")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--digest")
    parser.add_argument("--signers")
    options = parser.parse_args(list(arguments[1:]))
    from lit_xai.report.checking import check_folder

    is_verified = options.verify or bool(options.digest)
    return _printed(lambda: check_folder(options.folder, options.format, is_verified, options.digest, options.signers))


def report(arguments: Sequence[str]) -> int:
    """Write the report of a run anew, or a comparison of several; return 0, or 1 after a reason in one line.

    Args:
        arguments: the command, its folders and options.
    """
    parser = argparse.ArgumentParser("lit-xai report", add_help=False, allow_abbrev=False)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--dirpath")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--sign")
    options = parser.parse_args(list(arguments[1:]))
    if len(options.runs) == 1 and (options.dirpath or options.overwrite):
        parser.error("--dirpath and --overwrite are for two RUNs or more: the report of one is written where it is")
    if len(options.runs) > 1 and options.sign:
        parser.error("--sign is for one RUN: sign the reports, each by itself")
    from lit_xai.report.checking import compare_reports, rebuild

    if len(options.runs) > 1:
        return _printed(lambda: compare_reports(options.runs, options.dirpath or "runs", options.overwrite))
    return _printed(lambda: rebuild(options.runs[0], options.sign))


def _printed(action: "object") -> int:
    try:
        text, code = action()  # type: ignore[operator]
    except (OSError, ValueError) as error:
        from lit_xai.cli.exporting import with_option_names

        sys.stderr.write(f"lit-xai: error: {with_option_names(str(error))}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return int(code)
