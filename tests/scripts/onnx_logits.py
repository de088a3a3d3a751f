#!/usr/bin/env python3
"""Runs ONNX decoders in onnxruntime: onnx_logits.py OUT.json < JOBS

JOBS is a JSON list of {"model": path, "ids": [tokens], "head": width of a head, "decode": tokens to generate
greedily}. Writes a list with one entry a job to OUT.json: {"logits": the logits after the last id, "last":
the greatest logit after each id, "written": the generated tokens}, or {"error": text} if onnxruntime does not
run the model.
"""

import json
import os
import sys

import numpy as np
import onnx
import onnxruntime

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = onnx.load(path, load_external_data=False)
    levels = [a for node in model.graph.node for a in node.attribute if a.name == "accuracy_level"]
    if levels:
        # At level 0 activations are not rounded to 8 bits.
        onnx.external_data_helper.load_external_data_for_model(model, os.path.dirname(path))
        for level in levels:
            level.i = 0
        path = model.SerializeToString()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(model, ids, head):
    """Logits [len(ids), vocab] with an empty cache."""
    feed = {}
    for value in model.get_inputs():
        kind = TYPES[value.type]
        if value.name == "input_ids":
            feed[value.name] = np.array([ids], kind)
        elif value.name == "position_ids":
            feed[value.name] = np.arange(len(ids), dtype=kind)[None]
        elif value.name == "attention_mask":
            feed[value.name] = np.ones((1, len(ids)), kind)
        elif "past" in value.name:
            _, heads, *rest = value.shape
            # Keys and values have no length yet, the state of a convolution always has its own.
            rest = [0, rest[1] if isinstance(rest[1], int) else head] if len(rest) == 2 else rest
            feed[value.name] = np.zeros((1, heads, *rest), kind)
        else:
            # The factors of a LoRA.
            feed[value.name] = np.zeros([d if isinstance(d, int) else 0 for d in value.shape], kind)
    return model.run(["logits"], feed)[0][0].astype(np.float32)


def answer(job):
    model = session(job["model"])
    ids, head = list(job["ids"]), job["head"]
    logits = run(model, ids, head)
    written = []
    for _ in range(job["decode"]):
        written.append(int(run(model, ids + written, head)[-1].argmax()))
    return {"logits": logits[-1].tolist(), "last": logits.max(-1).tolist(), "written": written}


def answer_or_error(job):
    try:
        return answer(job)
    except Exception as error:
        return {"error": str(error)}


jobs = json.load(sys.stdin)
with open(sys.argv[1], "w") as out:
    json.dump([answer_or_error(job) for job in jobs], out)
