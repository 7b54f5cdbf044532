"""What a deep averaging network makes of reviews, dense and at a quarter of its multiply-accumulates.

    python benchmarks/text_quality.py [--data-dir data] [--seeds 0 1 2 3 4] [--out text_quality.jsonl]

Rotten Tomatoes, one thread, split by film anew for each seed; goes on where it stopped: each finished seed is a line of
--out. All learn from all films that are not tested on. Beside the network stands logistic regression on TF-IDF of words
and pairs of words (the best of three strengths on validation films, then fitted to these as well); the network's
settings were chosen on the splits of seeds 10 and 11. Differences are paired, with 95% intervals of a bootstrap over
the films of the test, 2,000 times; over the seeds, of Student's t.

``dense``: the network of configs/reviews.yaml, trained for 3 epochs. ``compressed``: that network cut at once to a
quarter of its multiply-accumulates, and trained for 3 epochs with its dense self as the teacher.
"""

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from scipy import stats
from torch.utils.data import DataLoader

from lit_xai import AttributionMonitor, KnowledgeDistillation, StructuredPruning
from lit_xai.data import Reviews, TextRows
from lit_xai.models import Classifier, DeepAverage

EPOCHS, TUNING_EPOCHS, SHARE = 3, 3, 0.25
DRAWS = 2000
VOCABULARY = 30000
QUIET: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
QUIET |= {"enable_model_summary": False, "accelerator": "cpu", "limit_val_batches": 0}


def classifier(lr: float) -> Classifier:
    """Return the network of configs/reviews.yaml."""
    optimizer = partial(torch.optim.AdamW, lr=lr, betas=(0.9, 0.9), weight_decay=0.01)
    schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=lr)
    network = DeepAverage(vocab_size=VOCABULARY, dim=64, hidden=256, letters=16384)
    return Classifier(network, num_classes=2, label_smoothing=0.1, optimizer=optimizer, lr_scheduler=schedule)


def right(model: LightningModule, rows: TextRows) -> np.ndarray:
    """Return which of the texts are classified rightly."""
    model.eval()
    with torch.no_grad():
        batches = DataLoader(rows, 256, collate_fn=rows.collate_fn)
        answers = [(model(**{k: v for k, v in one.items() if k != "labels"}), one["labels"]) for one in batches]
    return np.concatenate([(logits.argmax(1) == labels).numpy() for logits, labels in answers])


def by_words(data: Reviews) -> np.ndarray:
    """Return which test texts logistic regression on TF-IDF classifies rightly, trained on all others."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts = data.read()
    parts = [[part.tolist(), texts.labels[part].numpy()] for part in data.split(texts)]
    (train, y), (val, y_val), (test, y_test) = (([texts.texts[i] for i in rows], labels) for rows, labels in parts)

    def fitted(strength: float, words: list[str], labels: np.ndarray) -> Any:
        tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        model = LogisticRegression(C=strength, max_iter=1000).fit(tfidf.fit_transform(words), labels)
        return lambda other: model.predict(tfidf.transform(other))

    best = max((1.0, 3.0, 10.0), key=lambda strength: (fitted(strength, train, y)(val) == y_val).mean())
    return np.asarray(fitted(best, train + val, np.concatenate([y, y_val]))(test) == y_test)


def run(seed: int, data_dir: str, folder: Path, draws: bool) -> dict[str, Any]:
    """Train, compress and compare for one seed; what the runs write goes to the folder."""
    seed_everything(seed)
    data = Reviews(data_dir, seed=seed, vocab_size=VOCABULARY, val_size=0)
    data.setup()
    monitors = [AttributionMonitor(probe=4, name="texts", every_n_epochs=EPOCHS)] if draws else []
    model = classifier(0.001)
    options: dict[str, Any] = {"default_root_dir": folder, **QUIET}
    Trainer(max_epochs=EPOCHS, callbacks=monitors, **options).fit(model, data)
    found = {"words": by_words(Reviews(data_dir, seed=seed)), "dense": right(model, data.test_dataset)}
    small = classifier(0.0005)
    small.load_state_dict(model.state_dict())
    pruning = StructuredPruning(target_macs=SHARE, start_epoch=0, end_epoch=0, report_latency=False)
    callbacks = [pruning, KnowledgeDistillation(teacher="dense")]
    Trainer(max_epochs=TUNING_EPOCHS, callbacks=callbacks, **options).fit(small, data)
    found["compressed"] = right(small, data.test_dataset)
    texts = data.read()
    films = [texts.groups[i] for i in data.split(texts)[2].tolist()]
    result: dict[str, Any] = {"seed": seed, "films": len(set(films)), "texts": len(films)}
    result |= {name: 100 * float(one.mean()) for name, one in found.items()}
    for name, (one, other) in {
        "dense - words": ("dense", "words"),
        "compressed - dense": ("compressed", "dense"),
    }.items():
        result[name] = interval(found[one].astype(float) - found[other].astype(float), films)
    return result


def interval(differences: np.ndarray, films: list[str]) -> list[float]:
    """Return the mean in points and its 95% interval, by drawing films with replacement."""
    names = {film: i for i, film in enumerate(dict.fromkeys(films))}
    places = np.array([names[film] for film in films])
    sums, counts = (np.bincount(places, weights, len(names)) for weights in (differences, None))
    draws = np.random.default_rng(0).integers(len(names), size=(DRAWS, len(names)))
    means = 100 * sums[draws].sum(1) / counts[draws].sum(1)
    return [100 * float(differences.mean()), *np.percentile(means, [2.5, 97.5]).tolist()]


def over_seeds(differences: list[float]) -> str:
    """Return the mean in points and its 95% interval, each seed being one draw of the films."""
    n = len(differences)
    half = float(stats.t.ppf(0.975, n - 1)) * np.std(differences, ddof=1) / np.sqrt(n) if n > 1 else float("nan")
    return f"{np.mean(differences):+.1f} \u00b1 {half:.1f}"


def main() -> None:
    """Run what is missing, and print a line for each seed and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("text_quality.jsonl"))
    parser.add_argument("--figures", type=Path, help="a folder for attributions of the dense network")
    options = parser.parse_args()
    if not (Path(options.data_dir) / "rotten-tomatoes").exists():
        sys.stdout.write("Left out: there is no folder rotten-tomatoes in --data-dir.\n")
        return
    torch.set_num_threads(1)
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for seed in options.seeds:
        if all(one["seed"] != seed for one in known):
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(options.figures or scratch)
                known.append(run(seed, options.data_dir, folder, draws=options.figures is not None))
            with options.out.open("a") as file:
                file.write(json.dumps(known[-1]) + "\n")
    for one in known:
        print({name: np.round(value, 1).tolist() for name, value in one.items()})
    for name in ("words", "dense", "compressed"):
        print(f"{name}: {np.mean([one[name] for one in known]):.1f}% over {len(known)} seeds")
    for name in ("dense - words", "compressed - dense"):
        print(f"{name}: {over_seeds([one[name][0] for one in known])}")


if __name__ == "__main__":
    main()
