from hashlib import sha256

import numpy as np
import pytest

from lit_xai.data import JapaneseVowels


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Small files in the published format, whose checksums are taken for the published ones."""
    rng, folder = np.random.default_rng(0), tmp_path / "japanese-vowels"
    folder.mkdir()
    for part, count in (("TRAIN", 27), ("TEST", 18)):
        names = " ".join(str(i) for i in range(1, 10))
        lines = [f"@classLabel true {names}", "@data"]
        for i in range(count):
            channels = rng.normal(size=(12, 7 + i % 23)).round(4)
            lines.append(":".join(",".join(map(str, row)) for row in channels) + f":{1 + i % 9}")
        (folder / f"JapaneseVowels_{part}.ts").write_text("\n".join(lines))
    sums = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(JapaneseVowels, "checksums", sums)
    return tmp_path


def test_reads_its_files(written):
    data = JapaneseVowels(written, val_size=9)
    data.prepare_data()
    data.setup()
    assert data.train_dataset.inputs.shape == (18, 12, 29)
    assert data.test_dataset.inputs.shape == (18, 12, 29)
    assert data.test_dataset.targets.tolist() == [*range(9), *range(9)]


def test_missing_and_other_files_are_one_sentence(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"JapaneseVowels misses JapaneseVowels_TRAIN\.ts, .*package aeon holds"
    ):
        JapaneseVowels(tmp_path).setup("fit")
    (tmp_path / "japanese-vowels").mkdir()
    for name in JapaneseVowels.checksums:
        (tmp_path / "japanese-vowels" / name).write_text("@data")
    with pytest.raises(ValueError, match=r"JapaneseVowels_TRAIN\.ts' is not the published file"):
        JapaneseVowels(tmp_path).prepare_data()


def test_names_one_channel_per_coefficient_and_one_class_per_speaker(written):
    data = JapaneseVowels(written)
    data.setup("fit")
    assert len(data.feature_names) == data.train_dataset.inputs.shape[1]
    assert data.num_classes == 9
    assert data.sample_rate is None  # the length of a frame is not published with the data
