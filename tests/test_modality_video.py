"""Video: which frames make the clips, what a still video means, and the commands on films and folders of frames."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import FIXTURES, run
from matplotlib.figure import Figure
from PIL import Image

from metatransformer.core.batch import stack_views
from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import Record, View
from metatransformer.modalities import get_modality
from metatransformer.modalities.video import MODALITY, VideoOptions, VideoTransform, draw, features, load
from metatransformer.modalities.video.read import Video
from metatransformer.trunk import load_encoder

STEM = load_encoder("test").stem
SIDE = STEM.patch_size


def transform(**options: object) -> VideoTransform:
    return VideoTransform(VideoOptions(**{"size": SIDE, "frames": 4, "level": "kept"} | options), STEM)


def counting(count: int, *, rate_hz: float = 0.0) -> View:
    """Returns a raw video whose frame n is grey of level n."""
    frames = np.repeat(np.arange(count, dtype=np.uint8), SIDE * SIDE).reshape(count, SIDE, SIDE)
    value = {"frames": frames, "rate_hz": rate_hz} if rate_hz else frames
    return View("clip 7", load(Record("clip 7", value=value)))


def numbers(sample: View, **options: object) -> list[list[int]]:
    """Returns the numbers of the frames in each clip."""
    return transform(**options)(sample).inputs["clips"][:, :, 0, 0, 0].tolist()


def test_the_whole_video_is_spread_over_its_clips():
    # Eight equal stretches of 16 frames, each shown by the frame in its middle.
    assert numbers(counting(16), clips=2) == [[1, 3, 5, 7], [9, 11, 13, 15]]
    assert numbers(counting(16)) == [[2, 6, 10, 14]]


def test_short_videos_give_fewer_then_shorter_clips_and_no_frame_twice():
    assert numbers(counting(9), clips=3) == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert numbers(counting(3)) == [[0, 1, 2, 2]]  # an odd number is filled up to a whole tubelet
    assert numbers(counting(1)) == [[0, 0]]
    training = transform(clips=3)
    training.fit([counting(9), counting(20)])
    assert training.notes == (
        "videos of 9 to 20 frames",
        "1 training video has fewer than 12 frames and gives fewer or shorter clips",
    )
    training.fit([counting(1), counting(20)])
    assert training.notes[1] == "1 training video of a single frame: a still picture, without motion"


def test_clips_of_seconds_are_spread_from_start_to_end():
    sample = counting(40, rate_hz=10.0)
    assert numbers(sample, span_s=0.8, clips=3) == [[1, 3, 5, 7], [17, 19, 21, 23], [33, 35, 37, 39]]
    assert numbers(sample, span_s=0.8) == [[17, 19, 21, 23]]  # one clip stands in the middle
    assert numbers(counting(40), span_s=0.8, clips=3, rate_hz=10.0) == numbers(sample, span_s=0.8, clips=3)
    with pytest.raises(DataError, match=r"clip 7: must last at least 4.5 s \(input.span_s\); found 4 s"):
        numbers(sample, span_s=4.5)
    with pytest.raises(DataError, match="must have a known rate.*Set input.rate_hz"):
        numbers(counting(40), span_s=0.8)
    with pytest.raises(DataError, match="must show at least 4 frames in 0.2 s; found 2"):
        numbers(sample, span_s=0.2)


def test_only_the_frames_of_the_clips_are_read():
    asked: list[int] = []

    def pick(wanted):
        asked.extend(wanted)
        yield from (np.zeros((SIDE, SIDE, 3), np.uint8) for _ in wanted)

    video = Video("film", np.arange(1000) / 25, 40.0, True, pick)
    transform()(View("film", {"video": video}))
    assert asked == [125, 375, 625, 875]


def test_frames_are_whole_patches_in_their_aspect():
    wide = np.zeros((4, 3 * SIDE, 5 * SIDE, 3), dtype=np.uint8)
    clips = transform(size=4 * SIDE)(View("x", load(Record("x", value=wide)))).inputs["clips"]
    assert clips.shape == (1, 4, 3 * SIDE, 5 * SIDE, 3)


def test_augmentation_moves_all_frames_of_one_clip_alike():
    frames = np.random.default_rng(0).integers(0, 256, size=(1, 2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)
    still = View("x", load(Record("x", value=np.repeat(frames, 16, axis=0))))
    one = transform(clips=3, size=2 * SIDE)
    ready = one(still)
    assert ready.inputs["clips"].shape[0] == 3
    changed = one.augment(ready, np.random.default_rng(3)).inputs["clips"]
    assert changed.shape == (1, *ready.inputs["clips"].shape[1:])
    assert (changed == changed[:, :1]).all() and not np.array_equal(changed[0], ready.inputs["clips"][0])
    same = transform(crop=1.0, flip=False, size=2 * SIDE)
    ready = same(still)
    assert np.array_equal(same.augment(ready, np.random.default_rng(3)).inputs["clips"], ready.inputs["clips"])


def test_a_still_video_has_the_features_of_its_picture():
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, size=(1, SIDE, SIDE, 3), dtype=np.uint8), 6, axis=0)
    tokens = []
    for name, value in (("image", frames[0]), ("video", frames)):
        modality = get_modality(name)
        options = modality.options(size=SIDE, **({"level": "kept"} if name == "video" else {}))
        change = modality.transform(options, STEM)
        ready = change(View("x", modality.load(Record("x", value=value))))
        batch = stack_views([ready], fields=modality.fields)
        tokens.append(modality.tokenizer(options, change, 32, STEM)(batch.inputs, batch.masks).x)
    image, video = tokens
    # One patch: the class token and it; the video repeats it in each of its steps. Float32 sums in another order.
    torch.testing.assert_close(video[:, 0], image[:, 0])
    torch.testing.assert_close(video[0, 1:], image[0, 1:].expand(video.shape[1] - 1, -1), atol=1e-5, rtol=1e-5)


def test_frames_of_a_video_are_brought_to_one_level_together():
    ready = transform(level="video")(counting(16)).inputs["clips"][0, :, 0, 0, 0]  # frames 2, 6, 10, 14
    # By hand: in deviations of 2 sqrt(5) from 8 they are -1.342, -0.447, 0.447, 1.342.
    assert ready.tolist() == [40, 92, 144, 196]
    still = transform(level="video")(View("x", load(Record("x", value=np.full((8, SIDE, SIDE), 51, dtype=np.uint8)))))
    assert (still.inputs["clips"] == 118).all()


def test_features_are_maps_of_mean_deviation_and_motion():
    found = features(View("x", load(Record("x", value=np.full((8, SIDE, SIDE), 51, dtype=np.uint8)))))
    assert found.shape == (3 * 16 * 16,)
    np.testing.assert_allclose(found, np.repeat([0.2, 0, 0], 256), atol=1e-6)
    moving = features(counting(16))  # grey levels 0 to 15: deviation sqrt((16 ** 2 - 1) / 12), steps of 1
    np.testing.assert_allclose(moving, np.repeat([7.5, (255 / 12) ** 0.5, 1], 256) / 255, rtol=1e-5)


def test_draw_paints_four_frames_in_two_rows():
    axes = Figure().add_subplot()
    draw(axes, transform()(counting(16)))
    (image,) = axes.get_images()
    assert image.get_size() == (2 * SIDE + 2, 2 * SIDE + 2)
    painted = image.get_array()
    assert [painted[i, j, 0] for i in (0, -1) for j in (0, -1)] == [2, 6, 10, 14] and painted[SIDE, 0, 0] == 255


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"clips": 0}, {"span_s": -1.0}, {"rate_hz": -1.0}, {"size": 0}])
def test_options_are_checked(wrong: dict[str, float]):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"input.{name}'?: must"):
        VideoOptions(**wrong)


def test_unknown_words_in_memory_are_refused():
    with pytest.raises(DataError, match="must be an array, or hold 'frames' and 'rate_hz'; found 'fps'"):
        load(Record("x", value={"frames": np.zeros((1, 2, 2), np.uint8), "fps": 3}))
    with pytest.raises(DataError, match="must hold 'frames'"):
        load(Record("x", value={"rate_hz": 3}))


@pytest.fixture
def frame_folders(tmp_path: Path) -> Path:
    """Two classes of six folders with five frames each: dark and bright."""
    for number in range(12):
        folder = tmp_path / "data" / "ab"[number % 2] / f"video {number}"
        folder.mkdir(parents=True)
        for frame in range(5):
            grey = 40 + 150 * (number % 2) + 3 * frame
            Image.new("RGB", (SIDE, SIDE), (grey, grey, grey)).save(folder / f"{frame}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("joint", ["true", "false"])
def test_folders_of_frames_go_through_every_command(frame_folders: Path, tmp_path: Path, capsys, joint: str):
    words = [
        f"input.size={SIDE}",
        "input.frames=4",
        "input.level=kept",
        f"input.joint={joint}",
        "head.read=[1]",
        "run.device=cpu",
    ]
    status, result, err = run(["check", frame_folders, "--modality", "video", *words[:1]], capsys)
    assert (status, result["samples"], result["bad"]) == (0, 12, 0), err
    out = tmp_path / "run"
    fit = ["fit", frame_folders, "--modality", "video", "--encoder", "test", "--out", out, *words]
    status, result, err = run(fit, capsys)
    assert status == 0 and result["metrics"]["val"]["accuracy"] == 1.0, err
    status, result, err = run(["evaluate", out, frame_folders, "--split", "all"], capsys)
    assert status == 0 and result["samples"] == 12, err
    chosen = [frame_folders / "b" / "video 3", frame_folders / "a" / "video 0"]
    status, result, err = run(["predict", out, *chosen, "--out", tmp_path / "p.csv"], capsys)
    table = pd.read_csv(tmp_path / "p.csv")
    assert table["key"].tolist() == ["b/video 3", "a/video 0"] and table["prediction"].tolist() == ["b", "a"], err
    words = ["embed", chosen[0], FIXTURES / "video" / "good.mp4", "--model", out, "--out", tmp_path / "e.parquet"]
    status, result, err = run(words, capsys)
    assert status == 0 and result["rows"] == 2, err


def test_modality_is_declared_for_the_commands():
    assert MODALITY.requires == ("av",) and MODALITY.extra == "video"
    assert ".mp4" in MODALITY.source.suffixes and ".png" not in MODALITY.source.suffixes  # one picture is no video
