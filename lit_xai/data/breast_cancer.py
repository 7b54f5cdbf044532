"""Tumors, measured by their cell nuclei; part of scikit-learn."""

from lit_xai.data.table import Table, TableDataModule


class BreastCancer(TableDataModule):
    """569 tumors, malignant or benign, by 30 measures of their cell nuclei, part of scikit-learn: nothing to download.

    W. Wolberg, O. Mangasarian, N. Street and W. Street, "Breast Cancer Wisconsin (Diagnostic)", UCI Machine Learning
    Repository (1995). Arguments and errors are those of :class:`~lit_xai.data.table.TableDataModule`.

    Example:
        >>> data = BreastCancer(batch_size=32)
        >>> data.setup("fit")
        >>> x, y = next(iter(data.train_dataloader()))
        >>> x.shape, data.class_names, data.feature_names[0]
        (torch.Size([32, 30]), ['malignant', 'benign'], 'mean radius')
    """

    def read(self) -> Table:
        """Return all rows."""
        from sklearn.datasets import load_breast_cancer

        found = load_breast_cancer()
        return Table(found.data, found.target, found.feature_names, found.target_names)
