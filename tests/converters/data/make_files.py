"""Writes the small files of this folder. Needs PyTorch and safetensors.

Run:   python tests/converters/data/make_files.py

All files contain the same tensors: `a`, a transposed view; `b`, part of the storage of
`c`, in bfloat16; `n`, a scalar counter; `p`, a parameter in float16.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parent


def tensors() -> dict[str, torch.Tensor]:
    """Returns tensors with known values."""
    c = torch.arange(8, dtype=torch.bfloat16)
    return {
        "a": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,
        "b": c[2:6:2],
        "c": c,
        "n": torch.tensor(7),
        "p": torch.nn.Parameter(torch.tensor([0.5, 1.5], dtype=torch.float16)),
    }


def main() -> None:
    """Writes all files."""
    state = OrderedDict(tensors())
    state._metadata = OrderedDict(version=1)  # as in every module's state
    wrapped = {"model": state, "epoch": 3}
    torch.save(wrapped, FOLDER / "zip.pth")
    legacy = {f"module.{name}": x for name, x in state.items()}
    torch.save(legacy, FOLDER / "legacy.pth", _use_new_zipfile_serialization=False)
    plain = {name: x.detach().clone().contiguous() for name, x in state.items()}
    save_file(plain, FOLDER / "plain.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
