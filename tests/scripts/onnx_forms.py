#!/usr/bin/env python3
"""Writes a Hugging Face folder as an ONNX decoder in a given form: onnx_forms.py FOLDER FORM OUT.onnx

FOLDER holds a llama or qwen2 model without scaled rotary embeddings, in one safetensors file. FORM is a
comma-separated list of:

- plain: matrices [in, out] under numbers, as TorchScript's exporter names them;
- named: matrices [out, in] under their own names, followed by Transpose;
- gemm: the same for Gemm with transB;
- packed: q, k and v in one matrix;
- external: weights in OUT.onnx.data;
- typed: weights in float_data;
- half: weights in float16, followed by Cast;
- nbits2, nbits4 or nbits8: codes of 2, 4 or 8 bits for MatMulNBits, in blocks of 16;
- zeros or fzeros: packed zero points, or zero points that are floats;
- wide: blocks of 64;
- hscales: scales in float16, followed by Cast.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER, FORM, OUT = pathlib.Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3]
CONFIG = json.loads((FOLDER / "config.json").read_text())
LAYERS, HEADS = CONFIG["num_hidden_layers"], CONFIG["num_attention_heads"]
KV = CONFIG.get("num_key_value_heads", HEADS)
HEAD = CONFIG.get("head_dim") or CONFIG["hidden_size"] // HEADS
BITS = next((int(form[5:]) for form in FORM if form.startswith("nbits")), 0)
BLOCK = 64 if "wide" in FORM else 16

nodes, initializers = [], []


def bfloat16(path):
    """The bfloat16 tensors of a safetensors file as float32, since numpy has no bfloat16."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    for name, entry in header.items():
        begin, end = (8 + length + at for at in entry["data_offsets"])
        assert entry["dtype"] == "BF16", entry
        wide = np.frombuffer(data[begin:end], "<u2").astype("<u4") << 16
        yield name, wide.view("<f4").reshape(entry["shape"])


WEIGHTS = dict(bfloat16(FOLDER / "model.safetensors"))


def node(op, inputs, name, outputs=1, domain="", **attributes):
    outputs = [f"{name}_output_{i}" for i in range(outputs)]
    nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes))
    return outputs[0]


def constant(name, array):
    if "typed" in FORM and array.dtype == np.float32 and array.ndim > 1:
        tensor = helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.flatten().tolist())
    else:
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
    initializers.append(tensor)
    return name


def pack(codes):
    """Packs codes [..., n] into bytes, lowest bits first."""
    each = 8 // BITS
    codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % each)])
    codes = codes.reshape(*codes.shape[:-1], -1, each).astype(np.uint32)
    return (codes << (BITS * np.arange(each, dtype=np.uint32))).sum(-1).astype(np.uint8)


def blocks(x, w, path, name):
    rows, cols = w.shape
    most = 2**BITS - 1
    groups = np.pad(w, [(0, 0), (0, -cols % BLOCK)]).reshape(rows, -1, BLOCK)
    if "zeros" in FORM or "fzeros" in FORM:
        low, high = groups.min(-1).clip(max=0), groups.max(-1).clip(min=0)
        scales = np.maximum((high - low) / most, 1e-6).astype(np.float32)
        zeros = np.clip(-low / scales, 0, most).astype(np.float32)
        zeros = zeros if "fzeros" in FORM else zeros.round()
    else:
        scales = np.maximum(np.abs(groups).max(-1) / (most // 2 + 1), 1e-6).astype(np.float32)
        zeros = np.full_like(scales, most // 2 + 1)
    if "hscales" in FORM:
        scales = scales.astype(np.float16)
    codes = np.clip((groups / scales[..., None].astype(np.float32) + zeros[..., None]).round(), 0, most)
    scale = constant(f"{name}.weight_scales", scales)
    if "hscales" in FORM:
        scale = node("Cast", [scale], f"{path}/Cast", to=TensorProto.FLOAT)
    inputs = [x, constant(f"{name}.weight_Q{BITS}", pack(codes)), scale]
    if "zeros" in FORM:
        inputs.append(constant(f"{name}.weight_zp", pack(zeros)))
    elif "fzeros" in FORM:
        inputs.append(constant(f"{name}.weight_zp", zeros))
    return node(
        "MatMulNBits", inputs, f"{path}/MatMul_Q{BITS}", domain="com.microsoft", K=cols, N=rows, bits=BITS, block_size=BLOCK
    )


def linear(x, w, path, name):
    """x w^T. The matrix has this name, and its node this path."""
    if BITS:
        return blocks(x, w, path, f"{name}.MatMul")
    if "gemm" in FORM:
        # Gemm takes only matrices, so all tokens become rows.
        flat = node("Reshape", [x, constant(f"{path}/rows", np.array([-1, w.shape[1]]))], f"{path}/Flat")
        product = node("Gemm", [flat, constant(f"{name}.weight", w)], f"{path}/Gemm", transB=1)
        return node("Reshape", [product, constant(f"{path}/batch", np.array([1, -1, w.shape[0]]))], f"{path}/Batch")
    if "named" in FORM:
        value = node("Transpose", [constant(f"{name}.weight", w)], f"{path}/Transpose", perm=[1, 0])
    elif "half" in FORM:
        value = constant(f"{name}.weight", w.T.astype(np.float16))
        value = node("Cast", [value], f"{path}/Cast", to=TensorProto.FLOAT)
    else:
        value = constant(f"onnx::MatMul_{len(initializers) + 1000}", w.T)
    return node("MatMul", [x, value], f"{path}/MatMul")


def biased(x, names, path, name):
    biases = [WEIGHTS[f"{n}.bias"] for n in names if f"{n}.bias" in WEIGHTS]
    if not biases:
        return x
    return node("Add", [constant(f"{name}.bias", np.concatenate(biases)), x], f"{path}/Add")


def norm(x, name):
    scale = constant(f"{name}.weight", WEIGHTS[f"{name}.weight"])
    return node("RMSNormalization", [x, scale], f"/{name}/Norm", axis=-1, epsilon=CONFIG["rms_norm_eps"])


def projections(x, layer):
    own = [f"model.layers.{layer}.self_attn.{part}_proj" for part in "qkv"]
    path = f"/model/layers.{layer}/self_attn"
    matrices = [WEIGHTS[f"{name}.weight"] for name in own]
    if "packed" not in FORM:
        paths = [f"{path}/{part}_proj" for part in "qkv"]
        return [biased(linear(x, w, p, n), [n], p, n) for w, p, n in zip(matrices, paths, own)]
    name = f"model.layers.{layer}.attn.qkv_proj"
    path = f"/model/layers.{layer}/attn/qkv_proj"
    joined = biased(linear(x, np.concatenate(matrices), path, name), own, path, name)
    sizes = constant(f"{path}/sizes", np.array([len(w) for w in matrices]))
    outputs = [f"{path}/Split_output_{i}" for i in range(3)]
    nodes.append(helper.make_node("Split", [joined, sizes], outputs, name=f"{path}/Split", axis=-1))
    return outputs


def attention(x, layer, positions):
    q, k, v = projections(x, layer)
    path = f"/model/layers.{layer}/self_attn"
    q = node("RotaryEmbedding", [q, "cos_cache", "sin_cache", positions], f"{path}/q_rotary", num_heads=HEADS)
    k = node("RotaryEmbedding", [k, "cos_cache", "sin_cache", positions], f"{path}/k_rotary", num_heads=KV)
    y = node("Attention", [q, k, v], f"{path}/Attention", is_causal=1, q_num_heads=HEADS, kv_num_heads=KV)
    name = f"model.layers.{layer}.self_attn.o_proj"
    return linear(y, WEIGHTS[f"{name}.weight"], f"{path}/o_proj", name)


def feed_forward(x, layer):
    def part(x, part):
        name = f"model.layers.{layer}.mlp.{part}_proj"
        return linear(x, WEIGHTS[f"{name}.weight"], f"/model/layers.{layer}/mlp/{part}_proj", name)

    path = f"/model/layers.{layer}/mlp"
    gate = part(x, "gate")
    gate = node("Mul", [gate, node("Sigmoid", [gate], f"{path}/act_fn/Sigmoid")], f"{path}/act_fn/Mul")
    return part(node("Mul", [gate, part(x, "up")], f"{path}/Mul"), "down")


def graph():
    theta = CONFIG.get("rope_theta") or CONFIG["rope_parameters"]["rope_theta"]
    angles = np.outer(np.arange(64), theta ** (-np.arange(0, HEAD, 2) / HEAD))
    constant("cos_cache", np.cos(angles).astype(np.float32))
    constant("sin_cache", np.sin(angles).astype(np.float32))
    embedding = constant("model.embed_tokens.weight", WEIGHTS["model.embed_tokens.weight"])
    x = node("Gather", [embedding, "input_ids"], "/model/embed_tokens/Gather")
    for layer in range(LAYERS):
        normed = norm(x, f"model.layers.{layer}.input_layernorm")
        x = node("Add", [x, attention(normed, layer, "position_ids")], f"/model/layers.{layer}/Add")
        normed = norm(x, f"model.layers.{layer}.post_attention_layernorm")
        x = node("Add", [x, feed_forward(normed, layer)], f"/model/layers.{layer}/Add_1")
    x = norm(x, "model.norm")
    if "lm_head.weight" in WEIGHTS:
        head = node("Transpose", [constant("lm_head.weight", WEIGHTS["lm_head.weight"])], "/lm_head/Transpose")
    else:
        head = node("Transpose", [embedding], "Transpose_1", perm=[1, 0])
    nodes.append(helper.make_node("MatMul", [x, head], ["logits"], name="/lm_head/MatMul"))
    tokens = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"]) for n in ("input_ids", "position_ids")]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", None])
    return helper.make_graph(nodes, "decoder", tokens, [logits], initializers)


opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
model = helper.make_model(graph(), opset_imports=opsets, ir_version=10, producer_name="onnx_forms.py")
if "external" in FORM:
    name = pathlib.Path(OUT).name + ".data"
    onnx.save(model, OUT, save_as_external_data=True, location=name, size_threshold=256)
else:
    onnx.save(model, OUT)
