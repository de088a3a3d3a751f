#!/usr/bin/env python3
"""Writes and checks the splits of a GGUF model with the package gguf.

    gguf_splits.py write WHOLE.gguf OUT.gguf COUNT     writes OUT-00001-of-...gguf and so on, COUNT tensors
    each gguf_splits.py check WHOLE.gguf FOLDER             checks that the files of FOLDER are splits of the
    whole file
"""

import pathlib
import sys

import gguf

SPLIT = gguf.Keys.Split


def write(whole, out, count):
    reader = gguf.GGUFReader(whole)
    field = lambda name: reader.fields[name].contents()
    writer = gguf.GGUFWriter(None, field("general.architecture"), split_max_tensors=int(count))
    for name, value in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub = value.types[-1] if value.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, value.contents(), value.types[0], sub)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file(pathlib.Path(out))
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stored(reader):
    return {t.name: (t.tensor_type, t.shape.tolist(), t.data.tobytes()) for t in reader.tensors}


def fields(reader):
    return {name: (field.types, field.contents()) for name, field in reader.fields.items()
            if not name.startswith("GGUF.")}


def check(whole, folder):
    whole, folder = gguf.GGUFReader(whole), pathlib.Path(folder)
    files = sorted(folder.iterdir())
    number, count, total = (gguf.GGUFValueType.UINT16, gguf.GGUFValueType.UINT16, gguf.GGUFValueType.INT32)
    found = {}
    for index, file in enumerate(files):
        assert file.name == gguf.gguf_writer.SHARD_NAME_FORMAT.format(folder.name, index + 1, len(files)), file
        split = gguf.GGUFReader(file)
        keys = {SPLIT.LLM_KV_SPLIT_NO: ([number], index), SPLIT.LLM_KV_SPLIT_COUNT: ([count], len(files)),
                SPLIT.LLM_KV_SPLIT_TENSORS_COUNT: ([total], len(whole.tensors))}
        assert fields(split) == (fields(whole) | keys if index == 0 else keys), file
        tensors = stored(split)
        assert tensors and not tensors.keys() & found.keys(), file
        found |= tensors
    assert len(files) > 1 and found == stored(whole)


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](*sys.argv[2:])
