"""Video: clips of frames as tubelets, two frames deep, by the trunk's own kernel inflated over time.

File: MP4, MOV, AVI, MKV, WebM, GIF, MPEG, WMV, FLV; or one folder of pictures a video, its frames in natural order of
their names. In memory: an array ``[t, h, w]`` or ``[t, h, w, 1 or 3]`` of 8 or 16 bit, or a mapping with ``frames``
and, if known, ``rate_hz``.
Tokens: frames at even times of a clip, each resized to whole patches in its own aspect, all brought to the level of
photographs together, normalised as the trunk was trained; tubelets of 2 x S x S by the image kernel, half of it for
each frame, so that a still video gives the picture's tokens. Positions of the picture are resampled to the real grid,
those of time start at zero; the summary token is the class token. The clips of a video are rows of their own, and
pooling averages them.
Sources: Arnab et al. 2021 (ViViT, arXiv 2103.15691) for tubelets and inflation; Meta-Transformer section 3.2 (arXiv
2307.10802) for a video tokenizer made from the image's.
Errors: a damaged, truncated or foreign file, no stream of pictures, no frame, a video shorter than ``span_s``, frames
of unknown rate where seconds are asked for, pictures of several sizes in a folder, folders that can mean two things.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from metatransformer.core.errors import DataError
from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Source, Stem, Transform
from metatransformer.core.samples import Record, View
from metatransformer.core.settings import Rule, Settings
from metatransformer.data.records import counted
from metatransformer.modalities._picture.pixels import RULES, luminance, resize, to_patches
from metatransformer.modalities.video.frames import index_videos
from metatransformer.modalities.video.inside import VIDEO_INSIDE
from metatransformer.modalities.video.read import FILM_SUFFIXES, Video, open_video, video_of_array
from metatransformer.nn.tubelet import DEPTH, TubeletTokenizer

MAP = 16  # side of the plain baseline's maps
MAPPED = 16  # frames that they are of, at most
# Measured on lung ultrasound by grouped cross-validation inside the training folds (frozen focus-s14, balanced
# accuracy, six draws of the inner folds, differences of .02 are noise): videos of one level, mean of block 7 of 12
# .765, 6 .753, 8 .751; as they are .752, .741, .734, blocks 6, 7 and 8 side by side .734. By fewer draws: the 4 x 4
# grid .04 and summary tokens .06 below the mean; 8 frames .015 below 16; 168 and 224 pixels no better than 112.
DEFAULTS = {
    "tune": "head",
    "head.pool": "mean",
    "head.read": [0.58],
    "data.batch_size": 16,
}
MEAN, DEVIATION = 118.0, 58.0  # of the pixels of photographs (ImageNet), over all colours
GAP = 2  # white pixels between painted frames


@dataclass(frozen=True)
class VideoOptions(Settings):
    """What of a video the trunk sees.

    ``frames``: frames in a clip; ``clips``: clips of a video, whose features are averaged. ``span_s``: how long a
    clip is, its clips spread evenly over the video; "whole" = the clips together cover the video, whatever its
    length. ``size``: side in pixels of a square frame with as many tokens. ``joint``: the frames of a clip attend to
    each other; otherwise each pair of frames is read by itself. ``level``: "video" brings the frames of a video
    together to the mean and deviation of photographs, so that exposure and gain do not count; "kept" leaves them.
    ``rate_hz``: frames per second of folders and arrays (0 = unknown; films say it themselves). ``source``: whether a
    folder holds video ``files`` or ``folders`` of frames; "auto" refuses a folder that holds both. ``flip``: training
    clips may be mirrored; ``crop``: the smallest share of a side that a training crop keeps (1 = none).
    """

    frames: int = 16
    clips: int = 1
    span_s: float | Literal["whole"] = "whole"
    size: int = 112
    joint: bool = True
    level: Literal["video", "kept"] = "video"
    rate_hz: float = 0.0
    source: Literal["auto", "files", "folders"] = "auto"
    flip: bool = True
    crop: float = 0.8

    rules = (
        *RULES,
        Rule("frames", "be at least 1", lambda own: own.frames >= 1),
        Rule("clips", "be at least 1", lambda own: own.clips >= 1),
        Rule("span_s", "be 'whole' or above 0 seconds", lambda own: own.span_s == "whole" or own.span_s > 0),
        Rule("rate_hz", "be above 0 Hz, or 0 = unknown", lambda own: own.rate_hz >= 0),
    )


class VideoTransform(Transform):
    """Video -> clips of frames at the size that the tokenizer takes. Learns nothing."""

    def __init__(self, options: VideoOptions, stem: Stem) -> None:
        self.options = options
        self.patch = stem.patch_size
        self._seen: list[tuple[int, float, bool]] = []

    def fit(self, views: Iterable[View]) -> None:
        """Looks at the lengths of the training videos, to say what clips mean for them."""
        videos: Iterable[Video] = (view.inputs["video"] for view in views)
        self._seen = [(len(video), video.duration_s, video.timed) for video in videos]

    def __call__(self, view: View) -> View:
        """Returns ``clips`` [clips, frames, h, w, 3] uint8: whole patches, an even number of frames.

        Raises:
            DataError: see the module.
        """
        video: Video = view.inputs["video"]
        numbers = self.numbers(video, where=view.key)
        wanted = sorted(set(numbers.ravel().tolist()))
        frames: dict[int, np.ndarray] = {}
        size = None
        for number, picture in zip(wanted, video.pick(wanted), strict=True):
            if size is None:
                frames[number] = to_patches(picture, side=self.options.size, patch=self.patch, where=view.key)
                size = frames[number].shape[:2]
            else:
                frames[number] = resize(picture, size=size)
        clips = np.stack([np.stack([frames[number] for number in clip]) for clip in numbers.tolist()])
        if self.options.level == "video":
            clips = levelled(clips)
        return view.with_inputs({"clips": clips})

    def timing(self, video: Video) -> Video:
        """Returns the video with the times of its frames, as far as they are known."""
        return video if video.timed or not self.options.rate_hz else video.at_rate(self.options.rate_hz)

    def numbers(self, video: Video, *, where: str) -> np.ndarray:
        """Returns which frames make the clips, ``[clips, frames]``."""
        options, video = self.options, self.timing(video)
        if options.span_s == "whole":
            # A short video gives fewer clips, then shorter ones: no frame is asked for twice.
            clips, frames = max(1, min(options.clips, len(video) // options.frames)), min(options.frames, len(video))
            starts, span = np.arange(clips) * video.duration_s / clips, video.duration_s / clips
        else:
            clips, frames, span = options.clips, options.frames, options.span_s
            _require_span(video, span=span, where=where)
            spare = max(0.0, video.duration_s - span)
            starts = np.linspace(0, spare, clips) if clips > 1 else np.array([spare / 2])
        times = starts[:, None] + (np.arange(frames) + 0.5) * span / frames
        numbers = np.array([[video.frame_at(time) for time in clip] for clip in times])
        if options.span_s != "whole" and (shown := min(len(set(clip)) for clip in numbers.tolist())) < frames:
            raise DataError(
                where,
                must=f"show at least {frames} frames in {span:g} s",
                found=str(shown),
                do="Raise input.span_s or lower input.frames.",
            )
        odd = -frames % DEPTH
        return np.pad(numbers, ((0, 0), (0, odd)), mode="edge")

    def augment(self, view: View, rng: np.random.Generator) -> View:
        """Returns one of the clips, its frames cropped alike and resized back, mirrored half of the time."""
        clips = view.inputs["clips"]
        clip = clips[rng.integers(len(clips))]
        h, w = clip.shape[1:3]
        keep = rng.uniform(self.options.crop, 1.0)
        top, left = rng.uniform(0, 1 - keep, size=2)
        box = (left * w, top * h, (left + keep) * w, (top + keep) * h)
        clip = np.stack([resize(frame, size=(h, w), box=box) for frame in clip])
        if self.options.flip and rng.random() < 0.5:
            clip = clip[:, :, ::-1]
        return view.with_inputs({"clips": np.ascontiguousarray(clip[None])})

    @property
    def notes(self) -> tuple[str, ...]:
        """How long the training videos are, and how many are too short for all clips."""
        if not self._seen:
            return ()
        counts = [count for count, _, _ in self._seen]
        notes = [f"videos of {min(counts)} to {max(counts)} frames"]
        if all(timed for _, _, timed in self._seen):
            seconds = [duration for _, duration, _ in self._seen]
            notes[0] += f", {min(seconds):.3g} to {max(seconds):.3g} s"
        if single := counts.count(1):
            notes.append(f"{counted(single, 'training video')} of a single frame: a still picture, without motion")
        wanted = self.options.clips * self.options.frames
        short = sum(count < wanted for count in counts)
        if short and self.options.span_s == "whole":
            verbs = ("has", "gives") if short == 1 else ("have", "give")
            videos = counted(short, "training video")
            notes.append(f"{videos} {verbs[0]} fewer than {wanted} frames and {verbs[1]} fewer or shorter clips")
        return tuple(notes)


def levelled(clips: np.ndarray) -> np.ndarray:
    """Returns uint8 values brought to the mean and deviation of photographs; those of one single value become grey."""
    values = clips.astype(np.float32)
    spread = max(float(values.std()), 1.0)  # a nearly empty video is not blown up to noise
    return np.clip((values - values.mean()) / spread * DEVIATION + MEAN, 0, 255).round().astype(np.uint8)


def _require_span(video: Video, *, span: float, where: str) -> None:
    if not video.timed:
        raise DataError(
            where,
            must="have a known rate, to cut clips of seconds from it",
            found="frames without times",
            do="Set input.rate_hz, or input.span_s=whole.",
        )
    if video.duration_s < span * 0.999:  # durations are sums of rounded steps
        raise DataError(
            where,
            must=f"last at least {span:g} s (input.span_s)",
            found=f"{video.duration_s:.4g} s",
            do="Lower input.span_s, or set it to whole.",
        )


def tokenizer(options: VideoOptions, transform: Transform, width: int, stem: Stem) -> TubeletTokenizer:
    """Returns the tokenizer of clips."""
    del transform
    steps = -(-options.frames // DEPTH)
    return TubeletTokenizer(name="video", steps=steps, joint=options.joint, width=width, stem=stem)


def load(record: Record) -> dict[str, Video]:
    """Returns the ``video``: its times are read, its frames are not."""
    if record.path is not None:
        return {"video": open_video(record.path)}
    value = record.value if isinstance(record.value, Mapping) else {"frames": record.value}
    if unknown := sorted(set(value) - {"frames", "rate_hz"}):
        raise DataError(record.key, must="be an array, or hold 'frames' and 'rate_hz'", found=f"'{unknown[0]}'")
    if "frames" not in value:
        raise DataError(record.key, must="hold 'frames'", found="none")
    rate = float(value.get("rate_hz", 0.0))
    return {"video": video_of_array(np.asarray(value["frames"]), rate_hz=rate, where=record.key)}


def features(view: View) -> np.ndarray:
    """Returns maps of 16 x 16 grey values over 16 frames as loaded: mean, deviation, mean absolute step over time."""
    video: Video = view.inputs["video"]
    numbers = np.unique(np.linspace(0, len(video) - 1, MAPPED).round().astype(int)).tolist()
    frames = [luminance(frame)[:, :, None] for frame in video.pick(numbers)]
    small = np.stack([resize(frame, size=(MAP, MAP), smooth=False) for frame in frames]) / 255
    steps = np.abs(np.diff(small, axis=0)).mean(axis=0) if len(small) > 1 else np.zeros_like(small[0])
    return np.concatenate([part.ravel() for part in (small.mean(axis=0), small.std(axis=0), steps)])


def draw(axes: Any, view: View) -> None:
    """Paints four frames from the first to the last, in two rows."""
    clips = view.inputs["clips"]
    frames = clips.reshape(-1, *clips.shape[2:])
    frames = frames[np.linspace(0, len(frames) - 1, 4).round().astype(int)]
    frames = np.pad(frames, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    rows = [np.concatenate([frames[i], frames[i + 1]], axis=1) for i in (0, 2)]
    axes.imshow(np.concatenate(rows)[:-GAP, :-GAP])
    axes.set_axis_off()
    axes.set_xlabel("four frames from the first to the last, row by row")


def synthesize(rng: np.random.Generator, label: int) -> dict[str, np.ndarray]:
    """Returns noise of odd size with a bright bar that moves across (even label) or down (odd label)."""
    t, h, w = int(rng.integers(5, 12)), int(rng.integers(19, 32)), int(rng.integers(17, 30))
    frames = rng.normal(60, 12, size=(t, h, w, 3))
    for number in range(t):
        if label % 2:
            top = number * (h - 4) // t
            frames[number, top : top + 4] += 150
        else:
            left = number * (w - 4) // t
            frames[number, :, left : left + 4] += 150
    return {"frames": np.clip(frames, 0, 255).astype(np.uint8)}


MODALITY = Modality(
    name="video",
    summary="films and folders of frames, of any length, size and rate",
    source=Source(kind="files", suffixes=FILM_SUFFIXES, index=index_videos),
    fields={
        "clips": Field("clips* frames* h* w* 3", "uint8", unit="grey levels", summary="whole patches, even frames")
    },
    options=VideoOptions,
    load=load,
    transform=VideoTransform,
    tokenizer=tokenizer,
    features=features,
    raw_features=True,
    draw=draw,
    synthesize=synthesize,
    synthetic={"input.size": 16, "input.frames": 4},  # small
    native="patch kernel (inflated over two frames), positions and class token of the trunk",
    units="8 or 16 bit per channel; frames per second from the film, or input.rate_hz",
    defaults=DEFAULTS,
    requires=("av",),
    extra="video",
    inside=VIDEO_INSIDE,
)
