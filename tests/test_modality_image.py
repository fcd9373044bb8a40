"""Image: what is learned from pictures, and what is said of them."""

import numpy as np
import pytest

from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.modalities.image import ImageOptions, ImageTransform, load


def picture(top: int, dtype: type = np.uint16) -> View:
    values = np.linspace(0, top, 16 * 16).reshape(16, 16).astype(dtype)
    return View(f"up to {top}", load(Record("a", value=values)))


def fitted(*samples: View) -> ImageTransform:
    transform = ImageTransform(ImageOptions(size=16), Stem())
    transform.fit(samples)
    return transform


@pytest.mark.parametrize("top, bits", [(1019, 10), (1024, 12), (4095, 12), (9000, 14), (16384, 16), (65535, 16)])
def test_values_of_few_bits_in_16_are_shown_over_their_own_range(top: int, bits: int):
    transform = fitted(picture(top), picture(7))
    full = 2**bits - 1
    assert transform.top_ == full
    shown = transform(picture(top)).inputs["pixels"][:, :, 0]
    np.testing.assert_array_equal(shown.ravel(), picture(top).inputs["pixels"].ravel().astype(int) * 255 // full)
    told = (f"16-bit pictures are shown over 0..{full}, after the brightest in training",)
    assert transform.notes == (told if bits < 16 else ())
    again = ImageTransform(ImageOptions(), Stem())
    again.load_state(transform.state())
    assert again.top_ == full


def test_a_brighter_picture_than_any_in_training_is_white_and_said():
    transform = fitted(picture(1000))
    assert transform(picture(2046)).inputs["pixels"].max() == 255
    assert transform.doubts() == ("1 picture with values beyond 1023, the brightest in training: shown white",)
    assert not transform.doubts()


def test_8_bits_and_older_models_take_the_full_scale():
    assert fitted(picture(200, np.uint8)).top_ == 65535 and not fitted(picture(200, np.uint8)).notes
    older = ImageTransform(ImageOptions(), Stem())
    older.load_state({"side": 112})
    assert (older.side_, older.top_) == (112, 65535)
