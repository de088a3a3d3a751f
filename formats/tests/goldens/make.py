"""Makes the golden files of quant_goldens.rs. Deterministic; run in this folder with

    python -m venv v && v/bin/pip install numpy==2.4.6 gguf==0.19.0 libgguf==0.2.2 && v/bin/python make.py

values.f32     values that are ordinary, tiny, large, constant, zero, and on rounding ties, in rows of 256
weights.f32    importance weights of 768 columns, some zero; with them, three rows of values.f32 are one row
TYPE.encoded   those values as encoded by ggml's reference quantizers in C (libgguf)
TYPE.weighted  the same with the weights as the importance matrix
TYPE.blocks    blocks of random bytes, zeros, and ones, with finite half-precision scales
TYPE.decoded   those blocks as decoded by the Python package gguf and ggml's C code (libgguf), f32
imatrix.gguf   importance sums with counts, in llama-imatrix's present form
imatrix.dat    the same in its older form
imatrix.f32    the weights that libgguf reads in both: file by file, in the order of the names
"""

import struct

import gguf
import libgguf
import numpy as np

WEIGHTED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
ENCODED = ["F16", "BF16", "Q8_0", "MXFP4", *WEIGHTED]
# The offsets of each block's half-precision scales.
SCALES = {
    "F16": [0], "BF16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    # The last two bytes of IQ1_M have the top bits of its scale.
    "IQ1_S": [0], "IQ1_M": [54], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0],
    "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [], "NVFP4": [], "TQ1_0": [52], "TQ2_0": [64], "Q1_0": [0], "Q2_0": [0],
}
SIZES = {kind.name: size for kind, size in gguf.GGML_QUANT_SIZES.items()} | {"Q2_0": (64, 18)}
rng = np.random.default_rng(20241114)


def values() -> np.ndarray:
    row = lambda: rng.standard_normal(256)
    sparse = row() * (rng.random(256) < 0.1)
    uneven = row()
    uneven[:32] *= 1e-12
    uneven[64:96] = 0
    uneven[200] = 4000
    rows = [row(), row() * 0.02, rng.uniform(0, 1, 256), rng.uniform(-4, -3, 256), sparse, uneven]
    rows += [row() * scale for scale in (1e-41, 1e-20, 1e-15, 1e-6)]
    rows += [rng.uniform(-6e4, 6e4, 256), np.zeros(256), np.full(256, -0.37)]
    rows += [np.round(row() * 4) / 4, rng.integers(-127, 128, 256) / 2]
    return np.stack(rows).astype(np.float32)


def blocks(name: str) -> np.ndarray:
    elements, size = SIZES[name]
    random = rng.integers(0, 256, (1024 // elements, size), dtype=np.uint8)
    out = np.concatenate([random, np.zeros((1, size), np.uint8), np.full((1, size), 255, np.uint8)])
    for at in SCALES[name]:
        # Clears one bit of the exponent: all ones would be infinity or NaN.
        out[:, at + 1] &= 0xBB
    return out


def decoded(name: str, stored: np.ndarray) -> np.ndarray:
    if name == "Q2_0":
        # Neither package knows Q2_0. This is dequantize_row_q2_0 of ggml-quants.c.
        q = stored[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
        return (q.reshape(len(stored), -1) - np.float32(1)) * stored[:, :2].copy().view(np.float16).astype(np.float32)
    kind = gguf.GGMLQuantizationType[name]
    readings = []
    if name != "Q1_0":
        readings.append(gguf.dequantize(stored, kind).astype(np.float32))
    if name not in ("F16", "BF16"):
        readings.append(libgguf.dequantize_rows(stored, kind.value))
    assert all(reading.tobytes() == readings[0].tobytes() for reading in readings), name
    return readings[0]


def weights() -> np.ndarray:
    rng = np.random.default_rng(20250103)
    spread = rng.gamma(0.5, 2, 768) * (rng.random(768) < 0.9)
    spread[512:] = 10 ** rng.uniform(-20, 6, 256)
    return spread.astype(np.float32)


def importance_matrices() -> None:
    rng = np.random.default_rng(20250104)
    sums = lambda *shape: rng.gamma(0.5, 200, shape).astype(np.float32)
    # One matrix, and three experts, one without inputs.
    dense, experts = sums(1, 8), sums(3, 4)
    counts = np.array([[5], [0], [37]], np.float32)
    out = gguf.GGUFWriter("imatrix.gguf", "llama")
    out.add_string("general.type", "imatrix")
    out.add_array("imatrix.datasets", ["calibration.txt"])
    out.add_uint32("imatrix.chunk_count", 3)
    out.add_uint32("imatrix.chunk_size", 512)
    out.add_tensor("blk.0.attn_q.weight.in_sum2", dense)
    out.add_tensor("blk.0.attn_q.weight.counts", np.array([[1536]], np.float32))
    out.add_tensor("blk.0.ffn_up_exps.weight.in_sum2", experts)
    out.add_tensor("blk.0.ffn_up_exps.weight.counts", counts)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()

    entries = {b"blk.0.attn_q.weight": (3, dense), b"output.weight": (0, sums(6))}
    with open("imatrix.dat", "wb") as out:
        out.write(struct.pack("<i", len(entries)))
        for name, (calls, sums) in entries.items():
            out.write(struct.pack("<i", len(name)) + name + struct.pack("<ii", calls, sums.size) + sums.tobytes())
        out.write(struct.pack("<ii", 3, 15) + b"calibration.txt")
    read = [libgguf.load_imatrix(f"imatrix.{form}") for form in ("gguf", "dat")]
    np.concatenate([matrix[name] for matrix in read for name in sorted(matrix)]).tofile("imatrix.f32")


inputs = values()
inputs.tofile("values.f32")
for name in ENCODED:
    libgguf.quantize_rows(inputs, gguf.GGMLQuantizationType[name].value).tofile(f"{name}.encoded")
columns = weights()
columns.tofile("weights.f32")
for name in WEIGHTED:
    rows = inputs.reshape(-1, columns.size)
    libgguf.quantize_rows(rows, gguf.GGMLQuantizationType[name].value, columns).tofile(f"{name}.weighted")
importance_matrices()
for name in SCALES:
    stored = blocks(name)
    stored.tofile(f"{name}.blocks")
    decoded(name, stored).tofile(f"{name}.decoded")
