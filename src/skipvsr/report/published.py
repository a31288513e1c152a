"""Numbers as the paper prints them, to be shown beside ours: PSNR in dB / SSIM. What the paper calls FLOPs are MACs."""

from __future__ import annotations

from dataclasses import dataclass

SETS: tuple[str, ...] = ("REDS4 BI", "Vimeo-90K-T BI", "Vid4 BI", "UDM10 BD", "Vimeo-90K-T BD", "Vid4 BD")


@dataclass(frozen=True)
class Quoted:
    """A row of Table 1, or of Table 2 (where `method` is the threshold).

    Parameters in millions, GMAC and milliseconds per 180x320 frame, PSNR/SSIM on each of `SETS`; "-" where there is none.
    """

    method: str
    parameters: str
    gmacs: str
    milliseconds: str
    scores: tuple[str, ...]


def _quoted(line: str) -> Quoted:
    method, parameters, gmacs, milliseconds, *scores = line.split()
    return Quoted(method, parameters, gmacs, milliseconds, tuple(scores))


TABLE_1 = tuple(
    map(
        _quoted,
        """
Bicubic - - - 26.14/0.7292 31.32/0.8684 23.78/0.6347 28.47/0.8253 31.30/0.8687 21.80/0.5246
VESPCN - - - - - 25.35/0.7557 - - -
SPMC - - - - - 25.88/0.7752 - - -
TOFlow 1.4 274.9 1610 27.98/0.7990 33.08/0.9054 25.89/0.7651 36.26/0.9438 34.62/0.9212 -
DUF 5.8 1645.8 974 28.63/0.8251 - - 38.48/0.9605 36.87/0.9447 27.38/0.8329
RBP 12.2 8516.0 1507 30.09/0.8590 37.07/0.9435 27.12/0.8180 38.66/0.9596 37.20/0.9458 -
EDVR-M 3.3 304.2 118 30.53/0.8699 37.09/0.9446 27.10/0.8186 39.40/0.9663 37.33/0.9484 27.45/0.8406
PFNL 3.0 940.0 295 29.63/0.8502 36.14/0.9363 26.73/0.8029 38.74/0.9627 - 27.16/0.8355
TGA 5.8 694.1 236 - - - - 37.59/0.9516 27.63/0.8423
RLSP 4.2 82.3 49 - - - 38.48/0.9606 36.49/0.9403 27.48/0.8388
RSDN 6.2 355.7 94 - - - 39.35/0.9653 37.23/0.9471 27.92/0.8505
RRN 3.4 108.7 45 - - - 38.96/0.9644 - 27.69/0.8488
FastDVDnet 2.6 64.3 - - 36.12/0.9348 26.14/0.8029 - - -
BasicVSR 4.9 338.5 57 30.65/0.8735 36.43/0.9372 26.54/0.7923 39.12/0.9650 36.75/0.9400 27.03/0.8444
SkipVSR 4.9 338.5 58 30.60/0.8726 36.39/0.9365 26.54/0.7924 39.05/0.9645 36.73/0.9398 26.98/0.8434
""".strip().splitlines(),
    )
)

# SkipVSR at each threshold.
TABLE_2 = tuple(
    map(
        _quoted,
        """
0 4.9 338.5 58 30.60/0.8726 36.39/0.9365 26.54/0.7924 39.05/0.9645 36.73/0.9398 26.98/0.8414
0.9 4.9 324.9 57 30.41/0.8700 36.25/0.9342 26.39/0.7910 38.89/0.9634 36.60/0.9378 26.78/0.8212
0.92 4.9 297.8 55 30.22/0.8655 36.03/0.9320 26.28/0.7888 38.70/0.9589 36.42/0.9323 26.54/0.8057
0.93 4.9 264.0 49 30.02/0.8608 35.90/0.9315 26.09/0.7742 38.46/0.9534 36.09/0.9279 26.23/0.7989
0.94 4.9 216.6 42 29.76/0.8547 35.62/0.9248 25.67/0.7651 38.03/0.9487 35.68/0.9223 25.88/0.7890
0.95 4.9 145.5 30 29.38/0.8468 35.02/0.9136 25.22/0.7450 37.58/0.9400 35.13/0.9117 25.57/0.7777
""".strip().splitlines(),
    )
)

# PSNR on REDS4. VSR1: uniform skipping with alignment; VSR2: estimator alone; VSR3: alignment alone; VSR4: both.
TABLE_3 = (("VSR1", "25.30"), ("VSR2", "29.89"), ("VSR3", "30.60"), ("VSR4", "30.60"))
# Strategy, FLOPs, milliseconds, PSNR/SSIM.
TABLE_4 = (
    ("uniform skip", "278G", "35", "25.30/0.7288"),
    ("shallow skip", "278G", "34", "12.01/0.1840"),
    ("deep skip", "278G", "35", "28.87/0.7930"),
    ("SkipVSR 0.94", "293G", "42", "29.76/0.8547"),
    ("SkipVSR 0.95", "270G", "30", "29.38/0.8468"),
)
TABLE_5 = (
    ("psnr", "338.5G", "57", "25.67/0.6789"),
    ("psnr-interval", "338.5G", "103", "30.62/0.8725"),
    ("feature", "338.5G", "58", "21.01/0.3031"),
    ("feature-interval", "338.5G", "58", "30.60/0.8726"),
)
# Blocks between target layers (of 30), PSNR/SSIM; "-": did not converge.
TABLE_6 = ((15, "-"), (10, "25.52/0.6525"), (6, "30.60/0.8726"))
