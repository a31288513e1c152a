"""Upscale a short clip x4 with exported graphs alone: ONNX Runtime, NumPy and PyAV, without torch and without skipvsr.

    skipvsr export compact --onnx compact-onnx
    python examples/onnx_clip.py compact-onnx in.mp4 out.mp4

The whole clip is one scene and is held in memory; sound is left out. `skipvsr upscale` does without these limits.
"""

import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime as ort


def upscale(folder: Path, frames: list[np.ndarray]) -> list[np.ndarray]:
    """Frames (H, W, 3), RGB, uint8, of one scene -> as many of (4H, 4W, 3)."""
    sessions = {path.stem: ort.InferenceSession(path) for path in folder.glob("*.onnx")}

    def run(part: str, **inputs: np.ndarray) -> np.ndarray:
        return np.asarray(sessions[part].run(None, inputs)[0])

    x = [np.ascontiguousarray(frame.transpose(2, 0, 1)[None], np.float32) / 255 for frame in frames]
    height, width = x[0].shape[2:]
    channels = sessions["forward"].get_inputs()[1].shape[1]
    no_state, no_flow = np.zeros((1, channels, height, width), np.float32), np.zeros((1, 2, height, width), np.float32)

    # Backward: the state of a frame comes from that of the next one, brought onto it by the flow between them.
    backward, state, flow = [], no_state, no_flow
    for t in reversed(range(len(x))):
        if t + 1 < len(x):
            flow = run("flow", reference=x[t], support=x[t + 1])
        state = run("backward", frame=x[t], state=state, flow=flow)
        backward.insert(0, state)

    # Forward, the other way round; both states of a frame make the picture.
    results, state, flow = [], no_state, no_flow
    for t, frame in enumerate(x):
        if t > 0:
            flow = run("flow", reference=frame, support=x[t - 1])
        state = run("forward", frame=frame, state=state, flow=flow)
        results.append(run("reconstruction", frame=frame, backward=backward[t], forward=state))
    return [np.rint(result[0].clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0) for result in results]


def main() -> None:
    folder, source, destination = map(Path, sys.argv[1:])
    with av.open(str(source)) as container:
        rate = container.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(destination), "w") as container:
        stream = container.add_stream("libx264", rate, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = 4 * frames[0].shape[0], 4 * frames[0].shape[1], "yuv420p"
        for image in upscale(folder, frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
