"""Descriptions: everything that a modality declares, and nothing that it does not."""

import dataclasses
import re

import pytest

from metatransformer.core.errors import UsageError
from metatransformer.faces.describe import describe, example, markdown_table, modality_table
from metatransformer.modalities import get_modality, modality_module, modality_names, usable_modalities


@pytest.mark.parametrize("name", modality_names())
def test_describe_tells_files_units_settings_and_fields(name: str) -> None:
    modality, text = get_modality(name), describe(name)
    assert modality.summary in text and modality.units in text and modality.native in text
    assert all(word in text for word in ("File:", "Tokens:", "Sources:", "Errors:"))
    assert all(field.describe() in text for field in modality.fields.values())
    assert all(f"input.{item.name} = " in text for item in dataclasses.fields(modality.options))
    assert example(modality) in text


def test_describe_writes_settings_as_the_command_line_takes_them() -> None:
    text = describe("image")
    assert re.search(r"input\.size = auto +whole number or auto", text)
    assert "input.flip = true" in text and "tune = head" in text
    assert "input.mirrored = true" in text and "input.mirrored = false" not in text  # the recipe's default
    assert "piecewise or periodic" in describe("tabular")


def test_describe_refuses_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="Did you mean 'image'"):
        describe("imge")


def test_modality_module_is_where_the_constant_stands() -> None:
    assert modality_module("image").MODALITY is get_modality("image")


def test_tables_have_one_row_a_modality() -> None:
    columns, rows = modality_table(usable_modalities())
    assert [row[0] for row in rows] == modality_names()
    assert all(len(row) == len(columns) for row in rows)
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(rows) and len({line.count(" | ") for line in lines}) == 1
    assert lines[0].startswith("| modality | ") and lines[1].startswith("| --- | ")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    audio = [row for row in markdown_table().splitlines() if row.startswith("| [audio]")]
    assert all("pip install 'metatransformer[audio]'" in row for row in audio)
    monkeypatch.setattr("metatransformer.faces.describe.missing_packages", lambda names: list(names))
    needy = [name for name in modality_names() if get_modality(name).requires]
    assert [row[0] for row in modality_table(usable_modalities())[1] if row[-1].startswith("pip install")] == needy
