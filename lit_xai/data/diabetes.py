"""The progression of diabetes within a year; part of scikit-learn."""

from lit_xai.data.table import Table, TableDataModule

_NAMES = {
    "bmi": "body mass index",
    "bp": "blood pressure",
    "s1": "total cholesterol",
    "s2": "LDL",
    "s3": "HDL",
    "s4": "cholesterol / HDL",
    "s5": "log of triglycerides",
    "s6": "blood sugar",
}
"""The measures in words, after scikit-learn's description of the data."""


class Diabetes(TableDataModule):
    """442 patients, the progression of their diabetes after a year, and 10 measures: a regression.

    Part of scikit-learn: nothing to download.
    B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least Angle Regression", Annals of Statistics 32 (2004). The
    targets, 25 to 346, have their mean subtracted and are divided by their standard deviation (152.1 and 77.0), so
    that an error of 1 is one standard deviation. Arguments and errors are those of
    :class:`~lit_xai.data.table.TableDataModule`.

    Example:
        >>> data = Diabetes(batch_size=32)
        >>> data.setup("fit")
        >>> x, y = next(iter(data.train_dataloader()))
        >>> x.shape, y.dtype, data.feature_names[2:4]
        (torch.Size([32, 10]), torch.float32, ['body mass index', 'blood pressure'])
    """

    target_mean = 152.1
    target_std = 77.0

    def read(self) -> Table:
        """Return all rows."""
        from sklearn.datasets import load_diabetes

        found = load_diabetes(scaled=False)
        names = [_NAMES.get(name, name) for name in found.feature_names]
        return Table(found.data, (found.target - self.target_mean) / self.target_std, names)
