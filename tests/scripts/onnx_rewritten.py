#!/usr/bin/env python3
"""Checks rewritten models with onnx's checker and runs them in onnxruntime: onnx_rewritten.py FOLDER

The changed tensors hold the numbers 0, 1, 2, ... / 8. FOLDER/kinds.onnx is fixtures/onnx/kinds.onnx with
w.raw and b.typed changed. FOLDER/moved.onnx is the same with its weights in a file of their own.
FOLDER/external.onnx is fixtures/onnx/external.onnx with onnx::MatMul_1 changed.
"""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

FOLDER = pathlib.Path(sys.argv[1])


def load(name):
    path = str(FOLDER / name)
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return model, onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def numbers(*shape):
    return (np.arange(np.prod(shape), dtype=np.float32) / 8).reshape(shape)


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def kinds(name):
    model, session = load(name)
    branches = next(node for node in model.graph.node if node.op_type == "If").attribute
    inner = {a.name: numpy_helper.to_array(a.g.initializer[0]) for a in branches}
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    for flag in (True, False):
        xw, b = x @ numbers(4, 3), numbers(3)
        mid = (xw + b) * inner["then_branch"] if flag else (xw - b) * inner["else_branch"]
        expected = mid * np.float32(0.5) + np.array([0.5, -0.5, 1], np.float32)
        same(session.run(None, {"x": x, "flag": np.array(flag)})[0], expected)


def external():
    model, session = load("external.onnx")
    tensors = {tensor.name: numpy_helper.to_array(tensor, str(FOLDER)) for tensor in model.graph.initializer}
    assert (tensors["onnx::MatMul_1"] == numbers(4, 6)).all()
    x = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)
    expected = x @ numbers(4, 6) @ tensors["down.weight"].T + 2 * tensors["c"]
    same(session.run(None, {"x": x})[0], expected)


kinds("kinds.onnx")
kinds("moved.onnx")
external()
