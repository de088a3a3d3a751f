"""Makes the codebooks that mod.rs includes. Run in this folder with

    python -m venv v && v/bin/pip install numpy==2.4.6 gguf==0.19.0 && v/bin/python make.py

The points are those that the PyPI package gguf holds (MIT licence, Copyright (c) 2023 Georgi Gerganov), the
same as the tables iq1s_grid to iq3s_grid of ggml-common.h of llama.cpp (MIT licence, Copyright (c) 2023-2026
The ggml authors). A point is two bytes, little-endian: the level indices of its coordinates, the first in the
lowest bits. Eight coordinates have two bits each, four have four bits each.
"""

import gguf.quants
import numpy as np

for name in ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]:
    codebook = getattr(gguf.quants, name)
    codebook.init_grid()
    points, dimensions = codebook.grid_shape
    places = np.searchsorted(codebook.grid_map, codebook.grid.reshape(points, dimensions))
    shifts = np.arange(dimensions) * (16 // dimensions)
    np.sum(places << shifts, axis=1).astype("<u2").tofile(f"{name.lower()}.bin")
    print(name, points, dimensions, codebook.grid_map)
