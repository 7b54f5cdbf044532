"""Which section of a report is evidence for which item of a rule. Whether a rule is met, others decide."""

from typing import NamedTuple


class Item(NamedTuple):
    """An item of a rule.

    Args:
        rule: its name and number.
        asks: in short.
        sections: of the report, by their anchors, that are evidence for it.
    """

    rule: str
    asks: str
    sections: tuple[str, ...]


EU = "EU AI Act (Regulation (EU) 2024/1689)"

ITEMS = (
    Item(
        f"{EU}, Annex IV, 2",
        "how the system was developed, its data, and its validation and testing: metrics, and test reports dated and"
        " signed",
        ("verdict", "sign-off", "networks", "hurt", "data", "identity", "environment"),
    ),
    Item(
        f"{EU}, Annex IV, 3",
        "capabilities and limitations in performance, for specific persons or groups as well",
        ("limits", "networks", "hurt", "calibration"),
    ),
    Item(
        f"{EU}, Annex IV, 6",
        "relevant changes made to the system through its lifecycle",
        ("changes", "layers", "networks"),
    ),
    Item(
        f"{EU}, Article 13",
        "transparency to deployers: accuracy, known limitations, and what helps to explain and interpret the output",
        ("limits", "networks", "explanations", "explainers"),
    ),
    Item(
        f"{EU}, Article 15",
        "levels of accuracy and robustness, and the metrics they are declared in",
        ("verdict", "networks", "robustness", "flips", "calibration"),
    ),
    Item(
        f"{EU}, Article 86",
        "explanations of individual decisions: that a compressed model still gives those of the model that was"
        " reviewed",
        ("explanations", "explainers", "pictures", "reasons"),
    ),
    Item(
        "SR 26-2 (model risk management)",
        "validation, outcomes analysis, and review of changes to a model",
        ("verdict", "sign-off", "limits", "changes", "identity"),
    ),
    Item(
        "Regulation B, 12 CFR 1002.9",
        "statements of specific reasons for adverse action: that the reasons are those of the model that decides",
        ("reasons", "explanations", "explainers", "hurt"),
    ),
)
