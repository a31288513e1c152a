# SkipVSR in a container, with the versions of requirements.lock.
#   docker build -t skipvsr .
#   docker run --rm -v "$PWD:/work" skipvsr upscale in.mp4 out.mp4          (with a GPU: add --gpus all)
FROM python:3.11-slim

# The package index that torch comes from: one of builds for the CPU alone, or for some CUDA. Empty: pip's own, whose build for Linux
# has CUDA in it and runs on the CPU too.
ARG TORCH_INDEX=""
# "openvino", "train,openvino" ...; docs/install.md says what each brings.
ARG EXTRAS=""

# With a GPU, Triton (which comes with torch for CUDA) compiles what starts its kernels. Empty: no compiler, and blocks run through
# torch there, slower; on the CPU nothing needs one.
ARG COMPILER="gcc libc6-dev"

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN if [ -n "$COMPILER" ]; then apt-get update && apt-get install -y --no-install-recommends $COMPILER \
    && rm -rf /var/lib/apt/lists/*; fi
WORKDIR /opt/skipvsr
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src ./src
COPY scripts/docker_install.sh ./scripts/
RUN bash scripts/docker_install.sh "$TORCH_INDEX" "$EXTRAS"

WORKDIR /work
ENTRYPOINT ["skipvsr"]
CMD ["--help"]
