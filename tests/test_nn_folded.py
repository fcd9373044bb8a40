"""Spectra folded into pictures."""

import torch

from metatransformer.nn.folded import fold_spectra


def test_bands_stand_in_reading_order_and_the_rest_is_the_mean():
    spectrum = torch.tensor([[[1.0, 2, -1, 0.5, -2]]])  # five bands fill 3 x 3 cells in part
    picture = fold_spectra(spectrum, pixels=6)
    assert picture.shape == (1, 3, 6, 6)
    cells = picture[0, 0, ::2, ::2]
    torch.testing.assert_close(cells, torch.tensor([[1.0, 2, -1], [0.5, -2, 0], [0, 0, 0]]))
    assert (picture[0, 0] == picture[0, 1]).all() and (picture[0, 0] == picture[0, 2]).all()


def test_three_spectra_are_red_green_and_blue_and_far_values_stay_at_the_edge():
    spectra = torch.tensor([[[9.0], [-9.0], [0.5]]])
    picture = fold_spectra(spectra, pixels=5)
    assert picture.amax(dim=(2, 3)).tolist() == [[3.0, -3.0, 0.5]]
