"""How often a line of a verdict passes at its margin (at most 5%), and how often when all is well (its power).

    python benchmarks/noninferiority.py [--draws 20000]

``accuracy``: a drop of at most 1 point, where 1.2, 3 and 10% of the predictions change: exact, by summing over all
outcomes of n samples; power where accuracy did not fall. ``flips``: at most 1.2, 3 and 10%, drawn; power at half of
them. ``retention``: at least a half, of skewed similarities and ten untrained networks, drawn; ``latency``: a ratio of
at most a half, in n rounds of heavy-tailed times, drawn. Beside each power stands the closed form: the normal
approximation of drops and means, the binomial distribution of shares and medians.

``hurt``: ten groups of n samples, of which one loses 0 to 30 points of accuracy while 3% of the others' predictions
change, as many for the better as for the worse: how often it is named, at a margin of 1 point, and how often any other
is.
"""

import argparse

import numpy as np
from scipy import stats

from lit_xai.report.evidence import MedianRatio, Share, ShareDrop, retained
from lit_xai.report.hurt import parts_of, surely_hurt
from lit_xai.report.record import Candidate, Record

SIZES = (100, 360, 1_000, 10_000)
CHANGED = (0.012, 0.03, 0.1)
MARGIN = 0.01
LEVEL, Z = 0.05, 1.6448536269514722


def drop_passes(n: int, changed: float, drop: float) -> float:
    """Return the probability that a drop passes, summed over all numbers of lost and gained samples."""
    lost, gained = (changed + drop) / 2, (changed - drop) / 2
    found = 0.0
    for b in range(int(stats.binom.ppf(1 - 1e-9, n, lost)) + 1):
        weight = stats.binom.pmf(b, n, lost)
        if weight < 1e-10:
            continue
        # Passing is monotone: the more samples gained, the surer. The fewest that pass are found by halving.
        low, high = 0, n - b + 1
        while low < high:
            middle = (low + high) // 2
            passes = ShareDrop(b, middle, n).below(MARGIN) <= LEVEL
            low, high = (low, middle) if passes else (middle + 1, high)
        found += weight * stats.binom.sf(low - 1, n - b, gained / (1 - lost))
    return found


def drop_power(n: int, changed: float) -> float:
    """Return the closed form, of no drop: the score's variance at the margin, and the true one."""
    # The likeliest share of gained samples where the drop has to be the margin: the score has its variance from it.
    least = changed - 2 * MARGIN
    gained = (np.sqrt(least**2 + 4 * changed * MARGIN * (1 - MARGIN)) + least) / 4
    at_margin, true = 2 * gained + MARGIN * (1 - MARGIN), changed
    return float(stats.norm.cdf((MARGIN * np.sqrt(n) - Z * np.sqrt(at_margin)) / np.sqrt(true)))


def share_passes(n: int, margin: float, share: float, draws: int, rng: np.random.Generator) -> float:
    """Return how often a share passes."""
    counts, times = np.unique(rng.binomial(n, share, draws), return_counts=True)
    passed = [Share(int(count), n).below(margin) <= LEVEL for count in counts]
    return float((times * np.array(passed)).sum() / draws)


def share_power(n: int, margin: float, share: float) -> float:
    """Return the closed form: of counts so few that fewer than 5% would be, were the share the margin."""
    most = stats.binom.ppf(LEVEL, n, margin)
    most -= stats.binom.cdf(most, n, margin) > LEVEL
    return float(stats.binom.cdf(most, n, share))


def retention_passes(n: int, margin: float, draws: int, rng: np.random.Generator) -> float:
    """Return how often retention passes, of similarities of mean one half."""
    passed = 0
    for _ in range(draws):
        similar = 1 - rng.beta(1.5, 1.5, n) ** 2 * 0.5 / 0.3125  # skewed to the left, of mean 0.5
        null = rng.normal(0, 0.01, (10, 1)) + rng.normal(0, 0.1, (10, n))
        passed += retained(similar, null).above(margin) <= LEVEL
    return passed / draws


def latency_passes(n: int, margin: float, draws: int, rng: np.random.Generator) -> float:
    """Return how often a ratio passes, whose true median is one half."""
    ratios = 0.5 * np.exp(0.1 * rng.standard_t(2, (draws, n)))
    return float(np.mean([MedianRatio(one).below(margin) <= LEVEL for one in ratios]))


def latency_power(n: int, margin: float) -> float:
    """Return the closed form: of the rounds below the margin, which are binomial."""
    share = stats.t.cdf(np.log(margin / 0.5) / 0.1, 2)
    needed = stats.binom.isf(LEVEL, n, 0.5) + 1
    return float(stats.binom.sf(needed - 1, n, share))


def hurt(n: int, lost: float, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return how often the one of ten groups that loses is named, and how often any other is."""
    named, others = 0, 0
    groups = np.repeat(np.arange(10), n)
    for _ in range(draws):
        was = rng.random(10 * n) < 0.9
        flipped = rng.random(10 * n) < np.where(was, 0.015 / 0.9, 0.015 / 0.1)
        falls = (groups == 0) & was & (rng.random(10 * n) < lost / 0.9)
        networks = [
            Candidate(name, np.eye(2)[right.astype(int)])
            for name, right in {"a": was, "b": (was ^ flipped) & ~falls}.items()
        ]
        record = Record(tuple(networks), "classes", np.ones(10 * n, dtype=int), groups)
        parts = [part for part in parts_of(record) if part.kind == "group"]
        found = surely_hurt(record, parts, MARGIN)
        named += found[0]
        others += any(found[1:])
    return named / draws, others / draws


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{'':34}{'n':>7}{'at the margin %':>17}{'power %':>10}{'closed form %':>15}")

    def line(name: str, n: int, level: float, power: float, closed: float) -> None:
        print(f"{name:34}{n:7}{100 * level:17.2f}{100 * power:10.1f}{100 * closed:15.1f}", flush=True)

    for n in SIZES:
        for changed in CHANGED:
            name = f"accuracy drop<=1 %, {changed:.1%} change"
            line(name, n, drop_passes(n, changed, MARGIN), drop_passes(n, changed, 0.0), drop_power(n, changed))
    for n in SIZES:
        for margin in CHANGED:
            at = share_passes(n, margin, margin, args.draws, rng)
            power = share_passes(n, margin, margin / 2, args.draws, rng)
            line(f"flips <={margin:.1%}", n, at, power, share_power(n, margin, margin / 2))
    for n in SIZES:
        draws = max(5000, min(args.draws, args.draws * 100 // n))
        similar = 1 - rng.beta(1.5, 1.5, 100_000) ** 2 * 0.5 / 0.3125
        sd = np.sqrt(similar.var() / n + 0.25 * (0.01**2 + 0.1**2 / n) / 10)
        margin = 0.5 - 2.5 * sd
        closed = float(stats.norm.cdf(2.5 - Z))
        at = retention_passes(n, 0.5, draws, rng)
        line("retention >=", n, at, retention_passes(n, margin, draws, rng), closed)
    for n in (10, 21, 100, 360):
        at, power = latency_passes(n, 0.5, args.draws // 4, rng), latency_passes(n, 0.55, args.draws // 4, rng)
        line("latency ratio<=, n rounds", n, at, power, latency_power(n, 0.55))
    print(f"\n{'samples of the group':>22}{'loses, points':>15}{'named %':>10}{'another %':>11}")
    for n in (50, 100, 200, 400):
        for lost in (0.0, 0.05, 0.1, 0.2, 0.3):
            named, others = hurt(n, lost, max(200, args.draws // 50), rng)
            print(f"{n:22}{100 * lost:15.0f}{100 * named:10.1f}{100 * others:11.1f}", flush=True)


if __name__ == "__main__":
    main()
