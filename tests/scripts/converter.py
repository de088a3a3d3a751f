#!/usr/bin/env python3
"""Converts a Hugging Face folder with llama.cpp's own converter.

    converter.py LLAMA_CPP FOLDER OUTTYPE OUT.gguf

LLAMA_CPP is llama.cpp's source folder. The converter needs torch, transformers and sentencepiece.
"""

import runpy
import sys

llama_cpp, folder, outtype, out = sys.argv[1:]
sys.path[:0] = [llama_cpp, llama_cpp + "/gguf-py"]
sys.argv = ["convert_hf_to_gguf.py", folder, "--outtype", outtype, "--outfile", out]
runpy.run_path(f"{llama_cpp}/convert_hf_to_gguf.py", run_name="__main__")
