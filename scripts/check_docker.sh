#!/usr/bin/env bash
# Do what the Dockerfile does, without Docker: copy the files that it copies, and run its installation in a new environment.
#   scripts/check_docker.sh [PYTHON]     torch and the rest are those of PYTHON (.venv/bin/python), so that nothing is downloaded twice
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${1:-.venv/bin/python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/image"
grep '^COPY ' Dockerfile | while read -r _ words; do
  read -r -a names <<< "$words"
  target=$work/image/${names[-1]}
  unset 'names[-1]'
  if [ -d "${names[0]}" ]; then cp -r "${names[0]}" "$target"; else mkdir -p "$target"; cp "${names[@]}" "$target"; fi
done

"$python" -m venv "$work/venv"
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$site/borrowed.pth"
grep -q '^RUN bash scripts/docker_install.sh "$TORCH_INDEX" "$EXTRAS"$' Dockerfile
cd "$work/image"
PYTHONPATH='' PIP_DISABLE_PIP_VERSION_CHECK=1 bash scripts/docker_install.sh "" "openvino" "$work/venv/bin/python"
test -x "$work/venv/bin/skipvsr"
place=$(cd "$work" && PYTHONPATH='' venv/bin/python -c 'import skipvsr; print(skipvsr.__file__)')
case $place in "$work"/venv/*) echo "the Dockerfile's installation works" ;; *) echo "not installed, but found in $place"; exit 1 ;; esac
