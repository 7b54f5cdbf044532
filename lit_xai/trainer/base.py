"""The base of the callbacks: Lightning's Callback, from whichever of its two packages the project uses."""

import sys
from typing import TYPE_CHECKING

from lightning.pytorch import Callback

if TYPE_CHECKING or "pytorch_lightning" not in sys.modules:
    AnyCallback = Callback
else:
    # A Trainer accepts a callback of the other package, but type checks do not: the LightningCLI of a pytorch_lightning
    # project would refuse these in YAML. The two classes are twins, so inheriting from both adds no method.
    import pytorch_lightning

    class AnyCallback(Callback, pytorch_lightning.Callback):
        """A Callback of both packages."""
