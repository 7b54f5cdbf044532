"""Sequence classifiers of Hugging Face from a local folder."""

from torch import nn

from lit_xai.network.check import check_integer, refusal


def sequence_classifier(folder: str, num_classes: int | None = None) -> nn.Module:
    """Return the network of a folder that ``save_pretrained`` wrote; nothing is downloaded.

    Give the data module the same folder as its ``tokenizer``.

    Args:
        folder: of the network, or its name in the local cache of transformers.
        num_classes: classes to predict; default those that it was trained for. With another number, its last layer is
            initialized anew.

    Raises:
        ValueError: there is no such network.
    """
    from transformers import AutoModelForSequenceClassification

    options = {} if num_classes is None else {"num_labels": check_integer("num_classes", num_classes)}
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, ignore_mismatched_sizes=True, **options
        )
    except (OSError, ValueError) as error:  # no such folder, or none of a classifier of texts
        hint = f": {str(error).splitlines()[0]}"
        raise refusal("folder", "that of a network, as save_pretrained writes it", folder, hint) from None
