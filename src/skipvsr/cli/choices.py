"""The values that options allow, and defaults, as literals: reading them from the package would import torch.

`tests/test_cli_help.py` checks that each equals what the package itself has.
"""

from __future__ import annotations

DATASETS = (
    "reds-train",
    "reds4",
    "reds-val4",
    "vimeo-train",
    "vimeo-test",
    "vid4",
    "udm10",
    "spmcs",
    "folder",
    "stills",
)
# Several splits of one download, which `data check` takes together.
FAMILIES = ("reds", "vimeo")
DEGRADATIONS = ("bi", "bd", "bd-duf", "video", "h264-18", "h264-23", "h264-28", "h264-33", "h265-28")
LR_KINDS = ("bi", "bd")
SCALES = (2, 4)
TILINGS = ("frame", "patch")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
RUNTIMES = ("torch", "openvino")
PRESETS = ("fast", "balanced", "best")
AUDIO = ("copy", "aac", "opus", "flac", "none")
SIZES_OF_REPRODUCTION = ("paper", "mini", "smoke")
REPRODUCED = (
    "table1", "table2", "table3", "table4", "table5", "table6", "ablations", "fig1", "fig4", "fig5", "fig6", "curves",
)  # fmt: skip

LOOKAHEAD = 4
PATCH_BATCH_SIZE = 16
WARMUP = 16
WORKER_CPUS = 8
EVALUATION_WINDOW = 128
EVALUATION_LOOKAHEAD = 16
