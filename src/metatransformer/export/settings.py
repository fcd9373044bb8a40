"""What the copied preprocessing of a modality must know of a trained model, and which models it does not cover."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from metatransformer.core.samples import Record
from metatransformer.modalities.audio import AudioTransform
from metatransformer.modalities.hyperspectral import HyperspectralTransform, smoothing_of
from metatransformer.modalities.image import ImageTransform
from metatransformer.modalities.imu import ImuTransform
from metatransformer.modalities.infrared import InfraredTransform
from metatransformer.modalities.tabular import TabularTransform
from metatransformer.modalities.text import TextTransform
from metatransformer.modalities.timeseries import TimeseriesTransform
from metatransformer.modalities.timeseries.windows import Window
from metatransformer.modalities.xray import XrayTransform
from metatransformer.nn.beside import Beside, WordWeights
from metatransformer.pipeline import Pipeline

TENSORS = "tensors"  # the module that takes prepared samples


class Prepared(NamedTuple):
    """The ``module`` of ``export.runtime`` that prepares files, its settings, and ``why`` it is not the modality's."""

    module: str
    settings: Mapping[str, Any]
    why: str = ""


def preparation(pipeline: Pipeline, records: Sequence[Record | None]) -> Prepared:
    """Returns how files become inputs of the graph in the exported folder; ``records`` are samples of the one input."""
    if len(pipeline.route) > 1:
        return Prepared(TENSORS, {}, "samples of several inputs are prepared by the library")
    name = pipeline.modality.name
    if name not in SETTINGS:
        return Prepared(TENSORS, {}, f"{pipeline.modality.title or name} takes its library to be read")
    found = SETTINGS[name](pipeline, pipeline.transform, records)
    return found if isinstance(found, Prepared) else Prepared(name, {**found, "plain": _plain(pipeline)})


def _plain(pipeline: Pipeline) -> bool | list[int]:
    """Returns whether the head reads plain features too; of words, which bins."""
    (name,) = pipeline.route
    beside = dict(pipeline.head.beside.items()).get(f"plain:{name}")
    if isinstance(beside, Beside) and isinstance(beside.norm, WordWeights):
        return beside.norm.columns.tolist()
    return beside is not None


def _image(pipeline: Pipeline, transform: ImageTransform, records: Sequence[Record | None]) -> dict[str, Any]:
    return {"side": transform.side_, "patch": transform.patch, "top": transform.top_}


def _xray(pipeline: Pipeline, transform: XrayTransform, records: Sequence[Record | None]) -> dict[str, Any]:
    mean, std = transform.level
    window = transform.options.window
    return {"side": transform.side_, "patch": transform.patch, "window": window, "mean": mean, "std": std}


def _infrared(pipeline: Pipeline, transform: InfraredTransform, records: Sequence[Record | None]) -> dict[str, Any]:
    options = transform.options
    return {
        "side": transform.side_,
        "patch": transform.patch,
        "channels": transform.channels_,
        "window": options.window,
        "mean": transform.mean_,
        "std": transform.std_,
        **{name: getattr(options, name) for name in ("unit", "scale", "offset")},
    }


def _audio(pipeline: Pipeline, transform: AudioTransform, records: Sequence[Record | None]) -> dict[str, Any]:
    names = ("window_s", "hop_s", "range_db", "silence_db", "max_seconds", "max_windows")
    asked = {name: getattr(transform.options, name) for name in names}
    own = {"mels": transform.mels, "frames": transform.frames, "mean": transform.mean_, "std": transform.std_}
    return {**asked, **own}


def _imu(pipeline: Pipeline, transform: ImuTransform, records: Sequence[Record | None]) -> dict[str, Any] | Prepared:
    if transform.options.sample == "window" or pipeline.recipe.task.target:
        return Prepared(TENSORS, {}, "windows of long recordings are cut by the library")
    rate = transform.options.rate_hz or (0.0 if transform.timed_ else 1.0)  # 0: files bring their own times
    step = 1 / rate if rate else 0.0
    return {
        "names": list(transform.names_),
        "units": list(transform.units_),
        "step_s": step,
        "window": transform.window_,
        "max_windows": transform.options.max_windows,
        "patch": transform.patch,
        "mean": transform.mean_.tolist(),
        "scale": transform.scale_.tolist(),
    }


def _timeseries(
    pipeline: Pipeline, transform: TimeseriesTransform, records: Sequence[Record | None]
) -> dict[str, Any] | Prepared:
    options, window = transform.options, None if records[0] is None else records[0].value
    if not isinstance(window, Window) or options.known or len(transform.means_) != 1:
        why = "here only forecasts of one series without covariates of the future; others by the library"
        return Prepared(TENSORS, {}, why)
    (name,) = transform.means_
    return {
        "target": name.rpartition("/")[2],
        "covariates": list(transform.covariates_),
        "lookback": options.lookback,
        "fold": transform.fold(window),
        "columns": transform.columns,
        "mean": transform.means_[name],
    }


def _hyperspectral(
    pipeline: Pipeline, transform: HyperspectralTransform, records: Sequence[Record | None]
) -> dict[str, Any] | Prepared:
    bands = transform.bands_
    if bands is None or bands.names:
        return Prepared(TENSORS, {}, "tables of spectra are read by the library")
    return {
        "bands": list(bands.taken),
        "total": bands.count,
        "window": transform.options.window,
        "alike": transform.options.alike,
        "smooth": smoothing_of(transform.options, bands=len(bands.taken)),
        "mean": transform.mean_.tolist(),
        "scale": transform.scale_.tolist(),
    }


def _tabular(
    pipeline: Pipeline, transform: TabularTransform, records: Sequence[Record | None]
) -> dict[str, Any] | Prepared:
    if any(column.style or column.part for column in transform.columns_):
        return Prepared(TENSORS, {}, "dates and decimal commas are read by the library")
    names = ("name", "kind", "mean", "scale", "words", "rare", "missing")
    return {"columns": [{name: asdict(column)[name] for name in names} for column in transform.columns_]}


def _text(pipeline: Pipeline, transform: TextTransform, records: Sequence[Record | None]) -> dict[str, Any]:
    assert transform.subwords_ is not None
    options = transform.options
    return {
        "columns": list(transform.columns_),
        "words": list(transform.subwords_.words),
        "window": options.window,
        "max_windows": options.max_windows,
    }


SETTINGS: Mapping[str, Callable[[Pipeline, Any, Sequence[Record | None]], dict[str, Any] | Prepared]] = {
    "image": _image,
    "xray": _xray,
    "infrared": _infrared,
    "audio": _audio,
    "imu": _imu,
    "timeseries": _timeseries,
    "hyperspectral": _hyperspectral,
    "tabular": _tabular,
    "text": _text,
}
