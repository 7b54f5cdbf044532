"""Text, speech and reinforcement learning."""

from functools import partial
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch

from projects.project import BATCH_SIZE, SAMPLES, Built, from_repository, loader, project


@project(network="model", inputs="[0], [1]: ids and mask", logits="output.logits", labels="[2]")
def bert() -> Built:
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = mkdtemp()
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=16,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    with open(f"{folder}/vocab.txt", "w") as file:
        file.write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    BertTokenizer(f"{folder}/vocab.txt").save_pretrained(folder)
    module = from_repository("PoSeiDon-Workflows/FlowBench", "flowbench/nlp/sft.py").SFT(folder)
    module.train()  # from_pretrained returns evaluation mode, in which Lightning leaves it
    texts = [(torch.randint(40, (10,)), torch.ones(10, dtype=torch.long), i % 2) for i in range(SAMPLES)]
    return Built(module, loader(texts), loader(texts[:BATCH_SIZE]))


@project(network="(itself)", inputs="inputs", logits="output", labels="labels")
def mobilevit() -> Built:
    from transformers import MobileViTConfig, MobileViTForImageClassification

    folder = mkdtemp()
    config = MobileViTConfig(
        image_size=32, hidden_sizes=[32, 32, 32], neck_hidden_sizes=[16, 16, 16, 16, 16, 16, 32],
        num_attention_heads=2, num_labels=3, initializer_range=0.2,
    )  # fmt: skip
    MobileViTForImageClassification(config).save_pretrained(folder)
    code = from_repository("HenriSmidt/Alzheimer_Detection", "models/mobilevit_lightning.py")
    module = code.MobileViTLightning(folder, 3)
    module.train()
    pictures = [{"inputs": torch.rand(3, 32, 32), "labels": i % 3} for i in range(SAMPLES)]
    return Built(module, loader(pictures), loader(pictures[:BATCH_SIZE]), trainer={"limit_train_batches": 2})


@project(
    network="model", inputs="input_ids, attention_mask (and labels, shifted)", logits="output.logits", labels="labels",
    notes="its optimizer asks for trainer.gpus, which Lightning 2 has not: AdamW as there, without the warm-up",
)  # fmt: skip
def t5() -> Built:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0)
    module: Any = from_repository("yuto3o/pytorch-lightning-t5", "lightningt5.py").LightningT5Module(
        T5ForConditionalGeneration(config), None, learning_rate=1e-3
    )
    module.configure_optimizers = lambda: torch.optim.AdamW(module.model.parameters(), lr=1e-3)
    texts = [
        {
            "input_ids": torch.randint(1, 40, (10,)),
            "attention_mask": torch.ones(10, dtype=torch.long),
            "labels": torch.randint(1, 40, (6,)),
        }
        for _ in range(SAMPLES)
    ]
    return Built(module, loader(texts), loader(texts[:BATCH_SIZE]))


# --- speech -----------------------------------------------------------------------------------------------------------


@project(network="model", inputs="[0]: a mixture", logits="output: separated sources", labels="[1]: the sources")
def separation() -> Built:
    from asteroid.engine.system import System
    from asteroid.losses import PITLossWrapper, pairwise_neg_sisdr
    from asteroid.models import ConvTasNet

    network = ConvTasNet(
        n_src=2, n_blocks=2, n_repeats=1, bn_chan=16, hid_chan=32, skip_chan=16, n_filters=32, kernel_size=16, stride=8
    )
    voices = [torch.randn(2, 800) for _ in range(SAMPLES)]
    pairs = [(both.sum(0), both) for both in voices]
    module = System(
        network,
        torch.optim.Adam(network.parameters(), lr=1e-3),
        PITLossWrapper(pairwise_neg_sisdr, pit_from="pw_mtx"),
        loader(pairs),
        loader(pairs[:BATCH_SIZE]),
    )
    return Built(module)


@project(network="(itself)", inputs="X", logits="output: speakers per frame", labels="y")
def diarization() -> Built:
    from pathlib import Path
    from types import SimpleNamespace

    import numpy as np
    import soundfile
    from pyannote.audio.core import io
    from pyannote.audio.models.segmentation import PyanNet
    from pyannote.audio.tasks import VoiceActivityDetection
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.database.protocol import SpeakerDiarizationProtocol

    class Decoder:
        """What the package asks of torchcodec, which needs FFmpeg."""

        def __init__(self, path: Any) -> None:
            self.data, rate = soundfile.read(path, dtype="float32")
            self.metadata = SimpleNamespace(
                sample_rate=rate, duration_seconds_from_header=len(self.data) / rate, num_channels=1
            )

        def get_samples_played_in_range(self, start: float, end: float) -> Any:
            rate = self.metadata.sample_rate
            data = torch.from_numpy(self.data[round(start * rate) : round(end * rate)]).unsqueeze(0)
            return SimpleNamespace(data=data, sample_rate=rate)

    io.AudioDecoder = Decoder
    folder = Path(mkdtemp())
    rng = np.random.default_rng(0)

    def file(name: str) -> dict[str, Any]:
        soundfile.write(folder / f"{name}.wav", rng.standard_normal(16000 * 6) * 0.1, 16000)
        spoken = Annotation(uri=name)
        spoken[Segment(1, 4)] = "somebody"
        return {
            "uri": name,
            "audio": folder / f"{name}.wav",
            "annotation": spoken,
            "annotated": Timeline([Segment(0, 6)], uri=name),
            "database": "own",
            "subset": "train",
            "scope": "file",
        }

    files = [file(f"talk{i}") for i in range(2)]

    class Talks(SpeakerDiarizationProtocol):
        name = "own"

        def train(self) -> Any:
            yield from files

        development = train

    protocol = Talks()
    task = VoiceActivityDetection(protocol, duration=1.0, batch_size=BATCH_SIZE, num_workers=0)
    module = PyanNet(task=task, lstm={"hidden_size": 16, "num_layers": 1, "bidirectional": False})
    return Built(module, trainer={"limit_train_batches": 2, "limit_val_batches": 1})


# --- reinforcement learning -------------------------------------------------------------------------------------------


def _seeded(generator: Any, seed: int | None = None) -> tuple[Any, int]:
    return generator(np.random.PCG64(seed or 0)), seed or 0


def _old_gym() -> None:
    if not hasattr(np, "bool8"):  # which the environments of that time ask for
        np.bool8 = np.bool_  # type: ignore[attr-defined]
    from gym.utils import seeding
    from gym.utils.seeding import RandomNumberGenerator

    # Seeded by the operating system, no two runs are alike.
    seeding.np_random = partial(_seeded, RandomNumberGenerator)

    # Their random generators cannot be copied with the numpy of today.

    def deepcopy(self: Any, memo: Any) -> Any:
        copied = np.random.default_rng()
        copied.bit_generator.state = self.bit_generator.state
        return copied

    RandomNumberGenerator.__deepcopy__ = deepcopy


@project(network="net", inputs="[0]: states", labels=None)
def dqn() -> Built:
    _old_gym()
    file = "examples/pytorch/domain_templates/reinforce_learn_Qnet.py"
    module = from_repository("Lightning-AI/pytorch-lightning", file).DQNLightning("CartPole-v1", episode_length=32)
    return Built(module)


@project(
    network="actor (the critic sees the same states)", inputs="[0]: states", logits="output[0].logits", labels=None
)
def ppo() -> Built:
    _old_gym()
    file = "examples/pytorch/domain_templates/reinforce_learn_ppo.py"
    code = from_repository("Lightning-AI/pytorch-lightning", file)
    return Built(code.PPOLightning("CartPole-v1", batch_size=16, steps_per_epoch=64, nb_optim_iters=1))


@project(network="policy", inputs="locs (of an environment's state)", logits="output['log_likelihood']", labels=None)
def routing() -> Built:
    from rl4co.envs import TSPEnv
    from rl4co.models import AttentionModel

    module = AttentionModel(
        TSPEnv(generator_params={"num_loc": 6}),
        baseline="mean",
        policy_kwargs={"embed_dim": 16, "num_heads": 2, "num_encoder_layers": 1, "feedforward_hidden": 32},
        train_data_size=SAMPLES, val_data_size=BATCH_SIZE, test_data_size=BATCH_SIZE, batch_size=BATCH_SIZE,
        dataloader_num_workers=0,
    )  # fmt: skip
    return Built(module)
