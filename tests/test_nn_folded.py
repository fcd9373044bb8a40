"""Spectra folded into pictures."""

import pytest
import torch

from metatransformer.nn.folded import fold_spectra


def test_bands_stand_in_reading_order_and_the_rest_is_the_mean():
    spectrum = torch.tensor([[[1.0, 2, -1, 0.5, -2]]])  # five bands: two in a row, three rows
    picture = fold_spectra(spectrum, patch=1)
    assert picture.shape == (1, 3, 12, 8)  # 8 patches of one pixel wide: cells of 4 pixels
    torch.testing.assert_close(picture[0, 0, ::4, ::4], torch.tensor([[1.0, 2], [-1, 0.5], [-2, 0]]))
    assert (picture[0, 0, 4:8, :4] == -1).all()
    assert (picture[0, 0] == picture[0, 1]).all() and (picture[0, 0] == picture[0, 2]).all()


@pytest.mark.parametrize(
    ("bands", "shape"), [(200, (120, 112)), (204, (120, 112)), (1000, (256, 256)), (1, (112, 112))]
)
def test_cells_have_eight_pixels_where_there_are_many_bands(bands: int, shape: tuple[int, int]):
    assert fold_spectra(torch.zeros(2, 1, bands), patch=14).shape == (2, 3, *shape)


def test_three_spectra_are_red_green_and_blue_and_far_values_stay_at_the_edge():
    spectra = torch.tensor([[[9.0], [-9.0], [0.5]]])
    picture = fold_spectra(spectra, patch=3)
    assert picture.amax(dim=(2, 3)).tolist() == [[3.0, -3.0, 0.5]]
