"""Shell completion: the scripts are understood by their shells, and bash completes commands, names and files."""

import shutil
import subprocess
from pathlib import Path

import pytest
from common import run_alone

from metatransformer.faces.cli import main
from metatransformer.modalities import modality_names

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        done = run_alone(["-m", "metatransformer", "completion", shell])
        assert done.returncode == 0, done.stderr
        (folder / shell).write_text(done.stdout, encoding="utf-8")
    return {shell: folder / shell for shell in SHELLS}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_its_script_and_finds_names(shell: str, scripts: dict[str, Path]):
    text = scripts[shell].read_text(encoding="utf-8")
    assert "hyperspectral" in text and "focus-s14" in text and not text.rstrip().endswith("}}")
    if program := shutil.which(shell):
        done = subprocess.run([program, "-n", scripts[shell]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def completed(script: Path, folder: Path, *words: str) -> set[str]:
    """Returns what bash offers for the last word."""
    line = f"""
source {script}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
_shtab_metatransformer metatransformer '{words[-1]}' '{words[-2]}'
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=folder, check=True)
    return set(done.stdout.split())


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_names_and_files(scripts: dict[str, Path], tmp_path: Path):
    (tmp_path / "photos.csv").touch()
    (tmp_path / "focus.safetensors").touch()

    def of(*words: str) -> set[str]:
        return completed(scripts["bash"], tmp_path, "metatransformer", *words)

    assert of("pre") == {"predict", "pretrain"}
    assert of("fit", "--mod") == {"--modality"}
    assert of("fit", "photos.csv", "--modality", "") == set(modality_names())
    assert of("fit", "photos.csv", "--encoder", "focus") == {"focus-s14", "focus.safetensors"}
    assert of("fit", "pho") == {"photos.csv"}
    assert of("predict", "run", "pho") == {"photos.csv"}
    assert "segment" in of("fit", "photos.csv", "--task", "se")


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["completion", "tcsh"])
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
