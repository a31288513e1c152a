"""What the compiler makes of the kernels, without a GPU: registers, shared memory, spills, and the instructions that matter.

python scripts/inspect_kernels.py                                    # for Hopper, Ampere and AMD's CDNA 3
python scripts/inspect_kernels.py --target cuda:90 --channels 64 --dtype fp16 --pixels 64 128 256
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # it would be looked at when Triton is imported

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from skipvsr.inference import triton_kernels, triton_warp
from skipvsr.inference.triton_blocks import LaunchSettings

TARGETS = {
    "cuda:90": GPUTarget("cuda", 90, 32),
    "cuda:80": GPUTarget("cuda", 80, 32),
    "hip:gfx942": GPUTarget("hip", "gfx942", 64),
}
KERNELS = {
    "convolve": triton_kernels._convolve_tiles,
    "add": triton_kernels._add_tiles,
    "warp": triton_warp._warp,
}
POINTERS = ("state", "weight", "bias", "hidden", "source", "result")
# Matrix units of Hopper, of other GPUs of NVIDIA, and of AMD; and loads of 16 bytes straight into shared memory.
INSTRUCTIONS = {"wgmma": "wgmma.mma_async", "mma": "mma.sync", "mfma": "v_mfma", "copies": "cp.async.cg.shared.global"}


def inspect(name: str, target: str, channels: int, dtype: str, settings: LaunchSettings) -> dict[str, Any]:
    """Compile a kernel ("convolve", "add" or "warp") as it would be launched, and say what came out."""
    kernel = KERNELS[name]
    kinds: dict[str, str] = {}
    for argument in kernel.arg_names:
        if argument in POINTERS:
            kinds[argument] = f"*{dtype}"
        elif argument in ("order", "counts"):
            kinds[argument] = "*i32"
        elif argument == "flow":
            kinds[argument] = "*fp32"
        else:
            kinds[argument] = "constexpr" if argument.isupper() else "i32"
    constants = {
        "CHANNELS": channels,
        "BLOCK_CHANNELS": max(16, triton.next_power_of_2(channels)),
        "BLOCK_PIXELS": settings.block_pixels,
        "PRECISION": "ieee" if dtype == "fp32" else "tf32",
        "AS_FP32": False,
    }
    constants = {argument: value for argument, value in constants.items() if argument in kernel.arg_names}
    # Memory from torch begins at multiples of 16 bytes, and more.
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(kinds.values()) if kind[0] == "*"}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=constants, attrs=aligned)
    options = {"num_warps": settings.warps, "num_stages": settings.stages}
    compiled = triton.compile(source, target=TARGETS[target], options=options)
    text = compiled.asm.get("ptx") or compiled.asm["amdgcn"]
    found: dict[str, Any] = {
        "kernel": name, "target": target, "channels": channels, "dtype": dtype, "pixels": settings.block_pixels,
        "warps": settings.warps, "stages": settings.stages, "shared_bytes": compiled.metadata.shared,
    }  # fmt: skip
    found |= {name: text.count(instruction) for name, instruction in INSTRUCTIONS.items()}
    if "cubin" in compiled.asm:
        found |= _resources(compiled.asm["cubin"])
    return found


def _resources(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and bytes of local memory, which is where registers spill to."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    values = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return {"registers": values["REG"], "spilled_bytes": values["STACK"] + values["LOCAL"]}


def main() -> None:
    """Print one JSON object for each kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = LaunchSettings()
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--channels", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--dtype", nargs="+", choices=("fp16", "bf16", "fp32"), default=["fp16"])
    parser.add_argument("--pixels", nargs="+", type=int, default=[default.block_pixels])
    parser.add_argument("--warps", nargs="+", type=int, default=[default.warps])
    parser.add_argument("--stages", nargs="+", type=int, default=[default.stages])
    args = parser.parse_args()
    for target in args.target:
        for channels in args.channels:
            for dtype in args.dtype:
                for pixels, warps, stages in product(args.pixels, args.warps, args.stages):
                    settings = LaunchSettings(pixels, warps, stages)
                    for name in KERNELS:
                        print(json.dumps(inspect(name, target, channels, dtype, settings)), flush=True)


if __name__ == "__main__":
    main()
