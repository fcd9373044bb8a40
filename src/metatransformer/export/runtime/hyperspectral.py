"""Spectra -> the inputs of the graph, as the model was trained: numpy.

A file is NPY: one spectrum [b], several [n, b], or a cube [rows, columns, b], of which every pixel is a sample;
``bands`` are those that count, in the unit of training. ``spectrum`` [b] float32: the mean over those pixels of the
window that are most like the one in the middle, in deviations of each band from the training pixels (at most 50),
smoothed over neighbouring bands. ``plain``, where the head reads it: the same of the pixel alone, neighbouring bands
averaged where there are more than 200.
"""

import math

import numpy as np

FAR, MOST = 50.0, 200


def prepare(path, settings):
    """Yields one sample a spectrum or pixel: (key, its arrays by name)."""
    cube = np.load(path).astype(np.float64)
    cube = cube[None] if cube.ndim == 1 else cube
    spectra = cube.ndim == 2
    if cube.shape[-1] != settings["total"]:
        raise ValueError(f"must have {settings['total']} bands; found {cube.shape[-1]}")
    cube = (cube[:, None] if spectra else cube)[:, :, settings["bands"]]
    reach = 0 if spectra else settings["window"] // 2
    for row, column in np.ndindex(cube.shape[:2]):
        own = cube[row, column]
        around = cube[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        around = around.reshape(-1, len(own))
        near = np.argsort(np.square(around - own).sum(axis=1), kind="stable")
        around = around[near[: math.ceil(settings["alike"] * len(around))]] if reach else own[None]
        inputs = {"spectrum": standard(around.mean(axis=0), settings)}
        if settings["plain"]:
            pixel, size = standard(own, settings), math.ceil(len(own) / MOST)
            inputs["plain"] = np.array([pixel[start : start + size].mean() for start in range(0, len(pixel), size)])
            inputs["plain"] = inputs["plain"].astype(np.float32)
        yield f"{path}#{row}" if spectra else f"{path}#{row},{column}", inputs


def standard(spectrum, settings):
    """Returns a spectrum in deviations, smoothed."""
    values = (spectrum - np.array(settings["mean"])) / np.array(settings["scale"])
    if np.median(np.abs(values)) <= FAR:
        values = np.clip(values, -FAR, FAR)
    return smoothed(values, settings["smooth"]).astype(np.float32)


def smoothed(values, width):
    """Returns values averaged over neighbours by a Gaussian of this deviation, cut at 4; the ends go on."""
    if not width:
        return values
    reach = int(4 * width + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    padded = np.pad(values, reach, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")
