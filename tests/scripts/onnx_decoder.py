#!/usr/bin/env python3
"""Checks a decoder with onnx's checker and runs it in onnxruntime.

    onnx_decoder.py MODEL.onnx OUT [ADAPTER] < SEQUENCES

SEQUENCES is a JSON list of lists of token ids. Writes to OUT:

- "logits": a list of rows for each sequence;
- "cached": the distance of the logits when a sequence is read in parts through the cache;
- "padded": their distance when all sequences are one batch, padded on the left;
- "adapted": with ADAPTER, the logits while it is active.

Distances are relative to the largest logit.
"""

import json
import sys

import numpy as np
import onnx
import onnxruntime

MODEL, OUT, *ADAPTER = sys.argv[1:]
SEQUENCES = json.load(sys.stdin)


def check():
    onnx.checker.check_model(MODEL, full_check=True)
    model = onnx.load(MODEL, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    inputs = [value for value in model.graph.input if ".lora_" not in value.name]
    loras = [value.name for value in model.graph.input if ".lora_" in value.name]
    assert bool(loras) == bool(ADAPTER)
    names = [value.name for value in inputs]
    assert names[:3] == ["input_ids", "attention_mask", "position_ids"], names
    # A block has keys and values, or the state of a convolution.
    blocks, rest = [], names[3:]
    while rest:
        whats = ("conv",) if rest[0].endswith(".conv") else ("key", "value")
        start = "past" if whats == ("conv",) else "past_key_values"
        assert rest[: len(whats)] == [f"{start}.{len(blocks)}.{what}" for what in whats], names
        blocks.append(whats)
        rest = rest[len(whats) :]
    cache = [f"{layer}.{what}" for layer, whats in enumerate(blocks) for what in whats]
    outputs = [value.name for value in inferred.graph.output]
    assert outputs == ["logits"] + [f"present.{c}" for c in cache], outputs
    kind = onnx.helper.tensor_dtype_to_np_dtype(inferred.graph.output[0].type.tensor_type.elem_type)
    return kind, [empty_state(value.type.tensor_type) for value in inputs[3:]]


def empty_state(kind):
    """The type of a cache, and its shape without the batch: the length of keys and values is 0."""
    dims = kind.shape.dim[1:]
    return onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type), [d.dim_value for d in dims]


DTYPE, STATES = check()
SESSION = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])


def empty(batch):
    return [np.zeros([batch, *shape], kind) for kind, shape in STATES]


def run(ids, mask, positions, past, options=None):
    inputs = [np.array(x, np.int64) for x in (ids, mask, positions)] + past
    names = [value.name for value in SESSION.get_inputs()][: len(inputs)]
    logits, *present = SESSION.run(None, dict(zip(names, inputs)), options)
    assert logits.dtype == DTYPE and all(p.shape[2] == len(mask[0]) for p in present if p.ndim == 4)
    return logits.astype(np.float64), present


def whole(ids, options=None):
    return run([ids], [[1] * len(ids)], [range(len(ids))], empty(1), options)[0][0]


def in_parts(ids, first):
    """Logits when `first` tokens are read at once and the others one by one."""
    rows, past, start = [], empty(1), 0
    for end in [first, *range(first + 1, len(ids) + 1)]:
        logits, past = run([ids[start:end]], [[1] * end], [range(start, end)], past)
        rows.extend(logits[0])
        start = end
    return np.array(rows)


def padded(sequences):
    """Logits when all sequences are one batch, padded on the left."""
    length = max(map(len, sequences))
    pads = [length - len(ids) for ids in sequences]
    ids = [[0] * pad + ids for pad, ids in zip(pads, sequences)]
    mask = [[0] * pad + [1] * (length - pad) for pad in pads]
    positions = [[0] * pad + list(range(length - pad)) for pad in pads]
    logits, _ = run(ids, mask, positions, empty(len(ids)))
    return [rows[pad:] for rows, pad in zip(logits, pads)]


def apart(a, b):
    return float(np.max([np.abs(x - y).max() / np.abs(y).max() for x, y in zip(a, b)]))


LOGITS = [whole(ids) for ids in SEQUENCES]
SHORT = [ids[:96] for ids in SEQUENCES]
RIGHT = [whole(ids) for ids in SHORT]
answer = {
    "logits": [rows.tolist() for rows in LOGITS],
    "cached": apart([in_parts(ids, len(ids) // 2) for ids in SHORT], RIGHT),
    "padded": apart(padded(SHORT), RIGHT),
}
if ADAPTER:
    adapter, options = onnxruntime.LoraAdapter(), onnxruntime.RunOptions()
    adapter.Load(ADAPTER[0])
    options.add_active_adapter(adapter)
    answer["adapted"] = [whole(ids, options).tolist() for ids in SEQUENCES]
    # A run without the option does not use the adapter.
    assert all((whole(ids) == rows).all() for ids, rows in zip(SEQUENCES, LOGITS))
with open(OUT, "w") as file:
    json.dump(answer, file)
