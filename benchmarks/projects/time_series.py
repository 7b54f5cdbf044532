"""Forecasting."""

import numpy as np
import torch

from projects.project import BATCH_SIZE, SAMPLES, Built, captured, loader, project


def _series(length: int = 60) -> "np.ndarray":
    rng = np.random.default_rng(0)
    return np.sin(np.arange(length) / 3) + 0.1 * rng.standard_normal(length) + 2


def _gluonts_batches(lags: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    past, future = 12 + lags, 4

    def sample() -> dict[str, torch.Tensor]:
        series = torch.rand(past + future, generator=generator) + 1
        times = torch.randn(past + future, 2, generator=generator)
        return {
            "feat_static_cat": torch.zeros(1, dtype=torch.long),
            "feat_static_real": torch.zeros(1),
            "past_time_feat": times[:past],
            "future_time_feat": times[past:],
            "past_target": series[:past],
            "past_observed_values": torch.ones(past),
            "future_target": series[past:],
            "future_observed_values": torch.ones(future),
        }

    return [sample() for _ in range(SAMPLES)]


@project(
    network="the step",
    inputs="past_target, past_observed_values, past_time_feat, future_time_feat, feat_static_cat, feat_static_real"
    " (and future_target, shifted)",
    logits="parameters of a distribution",
    labels="future_target",
)
def gluonts_deepar() -> Built:
    """The step calls ``model.loss``, no forward of a module with weights but the parts inside."""
    from gluonts.torch.model.deepar import DeepARLightningModule

    lags = [1, 2, 3]
    options = {
        "freq": "D", "context_length": 12, "prediction_length": 4, "num_feat_dynamic_real": 2,
        "num_feat_static_real": 1, "num_feat_static_cat": 1, "cardinality": [1], "hidden_size": 16, "lags_seq": lags,
    }  # fmt: skip
    module = DeepARLightningModule(model_kwargs=options)
    batches = _gluonts_batches(max(lags))
    return Built(module, loader(batches), loader(batches[:BATCH_SIZE]))


@project(
    network="model",
    inputs="past_target, past_observed_values",
    logits="parameters of a distribution: output[0]",
    labels="future_target",
)
def gluonts_feedforward() -> Built:
    from gluonts.torch.model.simple_feedforward import SimpleFeedForwardLightningModule

    module = SimpleFeedForwardLightningModule(
        model_kwargs={"prediction_length": 4, "context_length": 12, "hidden_dimensions": [32, 32]}
    )
    batches = _gluonts_batches(0)
    return Built(module, loader(batches), loader(batches[:BATCH_SIZE]))


def _forecasting(name: str, **options: object) -> Built:
    import pandas as pd
    import pytorch_forecasting

    frames = [
        pd.DataFrame({"value": _series() + k, "time": np.arange(60), "group": str(k), "price": _series()[::-1]})
        for k in range(3)
    ]
    data = pytorch_forecasting.TimeSeriesDataSet(
        pd.concat(frames, ignore_index=True),
        time_idx="time",
        target="value",
        group_ids=["group"],
        max_encoder_length=12,
        max_prediction_length=4,
        time_varying_known_reals=["price"],
        time_varying_unknown_reals=["value"],
    )
    module = getattr(pytorch_forecasting, name).from_dataset(data, learning_rate=1e-3, **options)
    return Built(
        module,
        data.to_dataloader(train=True, batch_size=BATCH_SIZE, num_workers=0),
        data.to_dataloader(train=False, batch_size=BATCH_SIZE, num_workers=0),
        trainer={"limit_train_batches": 4, "limit_val_batches": 1},
    )


@project(
    network="(itself)",
    inputs="[0], a dict: encoder_cont, decoder_cont, encoder_cat, decoder_cat, lengths, target_scale",
    logits="output.prediction",
    labels="[1][0]",
)
def forecasting_tft() -> Built:
    return _forecasting("TemporalFusionTransformer", hidden_size=16, attention_head_size=2, hidden_continuous_size=8)


@project(
    network="(itself)",
    inputs="[0], a dict: encoder_cont, decoder_cont, target_scale",
    logits="output.prediction",
    labels="[1][0]",
)
def forecasting_nhits() -> Built:
    return _forecasting("NHiTS", hidden_size=32)


@project(
    network="(itself)", inputs="the past target, in float64", logits="output.prediction", labels="the future target"
)
def darts_tcn() -> Built:
    from darts import TimeSeries
    from darts.models import TCNModel

    series = TimeSeries.from_values(_series())
    model = TCNModel(
        input_chunk_length=12, output_chunk_length=4, num_filters=16, batch_size=BATCH_SIZE, n_epochs=1,
        pl_trainer_kwargs={"accelerator": "cpu", "logger": False},
    )  # fmt: skip
    built = captured(lambda: model.fit(series, val_series=series, dataloader_kwargs={"num_workers": 0}))
    built.trainer = {"precision": "64-true"}
    return built


@project(
    network="(itself)",
    inputs="temporal (windows cut out of it in the step)",
    logits="output",
    labels="temporal (windows cut out of it in the step)",
)
def neuralforecast_nhits() -> Built:
    import pandas as pd
    from neuralforecast import NeuralForecast
    from neuralforecast.models import NHITS

    frames = [
        pd.DataFrame({"unique_id": k, "ds": pd.date_range("2020-01-01", periods=60), "y": _series() + k})
        for k in range(4)
    ]
    model = NHITS(
        h=4,
        input_size=12,
        max_steps=12,
        mlp_units=[[32, 32]] * 3,
        accelerator="cpu",
        windows_batch_size=16,
        logger=False,
    )
    return captured(lambda: NeuralForecast([model], freq="D").fit(pd.concat(frames)))
