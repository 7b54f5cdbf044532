"""``lit-xai export``: a checkpoint as files that run without torch."""

import sys
from collections.abc import Sequence

HELP = """\
lit-xai export: write a checkpoint as ONNX files and compare them with the model, without training.

  lit-xai export --config logs/version_0/config.yaml --ckpt FILE [options]

  --config FILE         the configuration of the run; stacks as for the other commands
  --ckpt FILE           the checkpoint; of a pruned or quantized run its structure is restored
  --dirpath FOLDER      where the files go (export)
  --int8                quantize to 8 bits without training, to compare with quantization-aware training
  --calibrate N         with --int8: on N training samples (512); --activations float: weights alone in integers
  --cpu any|vnni|arm64  with --int8: the target CPU; any: correct results on every x86 (any)
  --max_drop X          with --int8: the fewest layers in float to lose no more of a metric; --ignored_layers [A]
  --module NAME         the submodule to export: a dotted name inside the LightningModule (all of it)
  --batch_to_inputs ..  the model's inputs in a batch: a key, an index, several, a function's import path
  --batch_to_target ..  the labels in a batch, for the metric: a key, an index, a function's import path
  --output ..           the logits in its output: a key, an attribute, an index, a function's import path
  --metric CLASS        a torchmetrics class by import path, its arguments as --metric.NAME (accuracy)
  --threads N           of the runtime, for the latency (1); --batch_sizes [N,M]: of the latencies ([1,64])
  --runtimes [A,B]      compare the files in [onnxruntime,openvino], on all threads too ([onnxruntime])
  --program false       without the torch.export program
  --overwrite           replace the files of an earlier export

Written are model.onnx, model.int8.onnx (with --int8, or after quantization-aware training), infer.py (which needs
numpy, and onnxruntime or openvino), a torch.export program, and tables. Options left out are those of the
ModelExport in the config. Those of `lit-xai validate` work too: --data.batch_size 256, --print_config."""

_FLAGS = ("--int8", "--overwrite")


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Return the arguments as the other commands spell them: ``--ckpt_path``, and flags with a value.

    Args:
        arguments: the command and its options, as typed.

    Raises:
        ValueError: no checkpoint is named.

    Example:
        >>> spelled_out(["export", "--ckpt", "last.ckpt", "--int8", "--overwrite=false"])
        ['export', '--ckpt_path', 'last.ckpt', '--int8=true', '--overwrite=false']
    """
    spelled = []
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        if name == "--ckpt":
            spelled.append(f"--ckpt_path{equals}{value}")
        elif argument in _FLAGS and following.lower() not in ("true", "false"):
            spelled.append(f"{argument}=true")
        else:
            spelled.append(argument)
    named = any(argument.partition("=")[0] in ("--ckpt_path", "--print_config") for argument in spelled)
    if not named:
        raise ValueError("export needs --ckpt FILE, the checkpoint whose weights are written.")
    return spelled


def export(arguments: Sequence[str]) -> int:
    """Export a checkpoint and print the report; return 0, or 1 if that failed for a reason explained in one line.

    Args:
        arguments: the command and its options, spelled out.
    """
    from lit_xai.cli.exporting import ExportCLI
    from lit_xai.cli.run import start

    cli = start(arguments, ExportCLI)
    if cli is None:
        return 1
    sys.stdout.write(f"{cli.trainer.report}\n")
    return 0
