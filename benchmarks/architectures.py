"""Well-known architectures, reduced in size and from their configurations: what is cut, quantized and exported of each.

    python benchmarks/architectures.py [--share 0.7] [--only yolo "HF T5" ...]

Cut to a share of the multiply-accumulates, or to the lowest that can be reached, with the reason for the rest. The
oracle: the cut network against the dense one with zeros for what is gone, in doubles, the largest difference as a share
of the largest output. Then layers in integers, and how far the files are from the networks in ONNX Runtime. Those of
timm need ``pip install timm``, those of Hugging Face ``pip install transformers``.
"""

import argparse
import sys
import traceback
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from architectures import ARCHITECTURES, HAS_TIMM, measure


def main() -> None:
    """Print one line an architecture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--only", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--traceback", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        if name.startswith("timm") and not HAS_TIMM:
            print(f"{name:18} left out: timm is not installed")
            continue
        try:
            print(measure(name, arguments.share), flush=True)
        except Exception as error:
            print(f"{name:18} FAILED {type(error).__name__}: {error}", flush=True)
            if arguments.traceback:
                traceback.print_exc()


if __name__ == "__main__":
    main()
