"""Running means of an epoch."""

from collections.abc import Mapping

from torch import Tensor


class Means:
    """The mean of each of several values, which need not all be there in every step.

    Nothing is read from the device before :meth:`compute`: a training step that waited for it would be slower.

    Example:
        >>> import torch
        >>> means = Means()
        >>> means.update({"task": torch.tensor(1.0)})
        >>> means.update({"task": torch.tensor(2.0), "features": torch.tensor(4.0)})
        >>> means.compute()
        {'task': tensor(1.5000), 'features': tensor(4.)}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of a step."""
        for name, value in values.items():
            # Counted by name: terms such as the explanation occur only in some steps.
            self._sums[name] = self._sums.get(name, 0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def compute(self) -> dict[str, Tensor]:
        """Return the means; empty before the first step."""
        return {name: value.float() / self._counts[name] for name, value in self._sums.items()}
