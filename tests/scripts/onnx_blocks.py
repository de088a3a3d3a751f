#!/usr/bin/env python3
"""Decodes block-quantized matrices with onnxruntime: onnx_blocks.py MODEL.onnx OUT.json

Runs every MatMulNBits of the model alone on the identity. Writes {name of the codes: matrix [in, out]} to
OUT.json.
"""

import json
import os
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

MODEL, OUT = sys.argv[1:]
model = onnx.load(MODEL, load_external_data=False)
onnx.external_data_helper.load_external_data_for_model(model, os.path.dirname(MODEL))
initializers = {tensor.name: tensor for tensor in model.graph.initializer}
producers = {output: node for node in model.graph.node for output in node.output}


def matrix(node):
    sizes = {a.name: a.i for a in node.attribute}
    nodes, tensors = [node], []
    for name in node.input[1:]:
        # A Cast may precede the scales.
        if name in producers:
            nodes.insert(0, producers[name])
            name = producers[name].input[0]
        tensors.append(initializers[name])
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
    graph = helper.make_graph(
        nodes, "one", [value(node.input[0], sizes["K"])], [value(node.output[0], sizes["N"])], tensors
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(alone.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {node.input[0]: np.eye(sizes["K"], dtype=np.float32)})[0]


with open(OUT, "w") as out:
    nodes = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    json.dump({node.input[1]: matrix(node).tolist() for node in nodes}, out)
