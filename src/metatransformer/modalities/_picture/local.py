"""What a plain model knows a pixel by: where it stands, its values, and filters of several widths around it."""

from collections.abc import Iterator

import numpy as np

from metatransformer.core.samples import View

WIDTHS = (1, 2, 4, 8, 16)  # deviations of the filters, in pixels


def local_pixels(raw: View, places: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
    """Returns ``[m, F]`` of the pixels whose flat numbers are ``chosen`` (None: all), as many of any picture."""
    del places
    maps = _maps(np.asarray(raw.inputs["pixels"], dtype=np.float32))
    return np.stack([one.ravel() if chosen is None else one.ravel()[chosen] for one in maps], axis=1)


def _maps(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Yields maps ``[h, w]``: two of the place, two of brightness, two of colour, which are 0 in a grey picture; and of
    each width brightness and colours blurred, slope, curvature and deviation of the brightness.
    """
    from scipy import ndimage

    pixels = pixels.reshape(*pixels.shape[:2], -1)
    known = np.isfinite(pixels)
    pixels = np.where(known, pixels, np.median(pixels[known]) if known.any() else 0)
    red, green, blue = (pixels[..., channel] for channel in ((0, 1, 2) if pixels.shape[2] >= 3 else (0, 0, 0)))
    light, colours = (red + green + blue) / 3, (red - green, blue - (red + green) / 2)
    h, w = light.shape
    yield from np.broadcast_arrays(((np.arange(h) + 0.5) / h)[:, None].astype(np.float32), light)[:1]
    yield from np.broadcast_arrays(((np.arange(w) + 0.5) / w)[None].astype(np.float32), light)[:1]
    yield light
    yield light - np.median(light)
    yield from colours
    for width in WIDTHS:
        blurred = ndimage.gaussian_filter(light, width)
        yield blurred
        yield from (ndimage.gaussian_filter(colour, width) for colour in colours)
        yield ndimage.gaussian_gradient_magnitude(light, width)
        yield ndimage.gaussian_laplace(light, width)
        yield np.sqrt(np.maximum(ndimage.gaussian_filter(light**2, width) - blurred**2, 0))
