"""What makes the tests quick: latencies that are hardly measured, and one table of torch's exporter per process."""

import contextlib
import functools
from unittest import mock

SECONDS = 0.01
"""The total time for which tests measure a file at one batch size: there are hundreds of exports in here."""


@contextlib.contextmanager
def quick_latencies():
    """Measure latencies no longer than it takes to have one."""
    from lit_xai.export import timing
    from lit_xai.runtime import latency

    with mock.patch.object(timing, "SECONDS", SECONDS), mock.patch.object(latency, "SECONDS", SECONDS):
        yield


@contextlib.contextmanager
def one_export_table():
    """Build torch's table of ONNX operators once: each export builds it anew, which is 0.8 s of its 1.9."""
    from torch.ao.quantization.fx import _decomposed  # noqa: F401 - registers operators that the table is to know
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    build = functools.cache(ONNXRegistry.from_torchlib)

    def copied(cls, *args, **options):
        built, registry = build(*args, **options), cls()
        # Its own lists: custom operators of one export are none of the next.
        registry.__dict__ |= {**vars(built), "functions": {name: [*some] for name, some in built.functions.items()}}
        return registry

    with mock.patch.object(ONNXRegistry, "from_torchlib", classmethod(copied)):
        yield
