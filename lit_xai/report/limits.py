"""What a report does not show, in sentences that stand before its numbers."""

from collections.abc import Iterator

import numpy as np

from lit_xai.report.estimates import FEWEST
from lit_xai.report.facts import Facts
from lit_xai.report.measured import each_sample, evidence_of, read_measured
from lit_xai.report.record import Record
from lit_xai.retention.predictions import ECE_FROM
from lit_xai.retention.retention import LIMIT


def limits_of(record: Record, facts: Facts, tested: int) -> list[str]:
    """Return the limits of what a record shows.

    Args:
        record: what was measured.
        facts: of it.
        tested: classes and groups that were tested for losses.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> networks = Candidate("dense", np.eye(2)), Candidate("pruned", np.eye(2))
        >>> limits_of(Record(networks, "classes"), {}, 2)[2]
        'There are no labels: what is counted are changes from the reference, right or wrong.'
    """
    gain = gain_of_training(record)
    return [
        *([gain] if gain else []),
        *_of_one_answer(record),
        *_of_the_verdict(record, facts),
        *_of_the_samples(record, tested),
        *_of_the_rest(record, facts),
    ]


def gain_of_training(record: Record, more_than: float = 0.0) -> str:
    """Return a sentence where the candidate is surely better than the reference, else an empty one.

    Compression alone hardly improves a network, so one of the two was trained longer or otherwise: a margin for a loss
    is then no measure of what compression cost.

    Args:
        record: what was measured.
        more_than: the least gain in accuracy, or in the mean absolute error, that is told.

    Example:
        >>> from lit_xai.report.record import Candidate
        >>> labels, right = np.zeros(40, dtype=np.int64), np.tile([[1.0, 0.0]], (40, 1))
        >>> networks = Candidate("dense", np.concatenate([right[:20], 1 - right[20:]])), Candidate("pruned", right)
        >>> gain_of_training(Record(networks, "classes", labels=labels))[:66]
        'pruned is surely better than dense: accuracy 100.0% against 50.0%.'
    """
    name, worse = ("mae", "rise<=0") if record.task == "values" else ("accuracy", "drop<=0")
    (evidence,) = evidence_of(record, read_measured({name: worse})).values()
    if isinstance(evidence, str) or max(evidence.bounds()) >= -more_than:
        return ""
    was, now = (float(one.mean()) for one in each_sample(record, name))
    numbers = f"{now:.4g} against {was:.4g}" if record.task == "values" else f"{now:.1%} against {was:.1%}"
    return (
        f"{record.candidate.name} is surely better than {record.reference.name}: {name} {numbers}. Training explains"
        " that, not compression, so that a limit on the loss says little here: name a reference that was trained to the"
        " end."
    )


def _of_one_answer(record: Record) -> Iterator[str]:
    """Yield a sentence where the candidate is hardly better than the most frequent class as its only answer."""
    if record.labels is None or record.task == "values":
        return
    labels, counts = np.unique(record.labels, return_counts=True)
    share = float(counts.max() / counts.sum())
    right = float(each_sample(record, "accuracy")[1].mean())
    # Less than a one-sided bound of 95% above it; data of a single class tell nothing.
    if share < 1 and right - share < 1.645 * (share * (1 - share) / record.n) ** 0.5:
        most = int(labels[counts.argmax()])
        name = record.class_names[most] if most < len(record.class_names) else f"class {most}"
        yield (
            f"{record.candidate.name} is right for {right:.1%} of the samples, and always answering {name} would be for"
            f" {share:.1%}: that its accuracy hardly changed says little here."
        )


def _of_the_verdict(record: Record, facts: Facts) -> Iterator[str]:
    yield (
        f"The numbers hold for the {record.n:,} test samples and for what these are a random sample of. They say"
        " nothing about other data, such as data from another place or another year."
    )
    if facts.get("requirements") and facts.get("stated") != "before":
        yield "The requirements were stated after the run: they may have been chosen to fit its numbers."
    if facts.get("reading", 1) > 1:
        yield (
            f"This is reading number {facts.get('reading')} of the test samples. Whoever reads them again and again"
            " finds a network that passes by chance."
        )
    yield "One training stands for each network: what another seed would give is not in the bounds."


def _of_the_samples(record: Record, tested: int) -> Iterator[str]:
    if record.labels is None:
        yield "There are no labels: what is counted are changes from the reference, right or wrong."
    elif record.task != "values" and record.n < ECE_FROM:
        yield f"Fewer than {ECE_FROM} samples give no calibration error: most of it would be noise."
    if tested:
        yield (
            f"Of {tested:,} classes and groups one is named as hurt only if it surely is, such that in 95 of 100"
            " reports none is named by mistake. Smaller losses, and those of small groups, stay unnamed: look at their"
            " bounds."
        )
    if record.groups is None:
        yield "No groups were given: whether some people or places lost more than others cannot be seen here."
    elif (fewest := int(np.unique(record.groups, return_counts=True)[1].min())) < FEWEST:
        yield f"The smallest group has {fewest} samples, of which only the largest losses can be seen."


def _of_the_rest(record: Record, facts: Facts) -> Iterator[str]:
    if record.explained:
        yield f"Of retention: {LIMIT[0].lower()}{LIMIT[1:]}"
        is_measured = any(one.faithful for one in record.explained)
        if not is_measured and not facts.get("faithfulness"):
            yield "Whether the explanations are faithful to the networks was not measured."
        for one in record.explained:
            if failed := (one.arguments.get("faithfulness") or {}).get("failed"):
                yield f"How faithful {one.explainer} is could not be measured: {failed.rstrip('.')}."
    else:
        yield "No explanations were compared."
    if record.candidate.latency is None:
        yield "No latency was measured."
    else:
        yield "Latencies are those of the machine below, with its threads and batch size, and of no other."
    yield from facts.get("limits", [])
