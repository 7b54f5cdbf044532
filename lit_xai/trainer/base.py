"""The base of our callbacks: a Callback of Lightning, under whichever of its two names the project uses."""

import sys
from typing import TYPE_CHECKING

from lightning.pytorch import Callback

if TYPE_CHECKING or "pytorch_lightning" not in sys.modules:
    AnyCallback = Callback
else:
    # A Trainer takes a callback of the other package, but type checks do not: the LightningCLI of a pytorch_lightning
    # project would refuse ours in YAML. The two classes are twins, so that either one's methods do.
    import pytorch_lightning

    class AnyCallback(Callback, pytorch_lightning.Callback):
        """A Callback of both packages."""
