#!/usr/bin/env bash
# Put VapourSynth into a Python's environment, for the tests of its filter.
#   scripts/install_vapoursynth.sh [PYTHON]     (.venv/bin/python)
# Its packages are for Python 3.12 and later. For 3.11 its module for Python is compiled here from the same release's source
# (half a minute; needs a C++ compiler, and the headers of Vulkan, which Debian has); its core, filters and vspipe are those of
# the package.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${1:-.venv/bin/python}")
pip=("$python" -m pip --disable-pip-version-check --quiet)
wanted=$(sed -n 's/^\(vapoursynth==[^;]*\);.*/\1/p' requirements.lock)
"$python" -c 'import vapoursynth' 2>/dev/null && exit 0
if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then
  "${pip[@]}" install "$wanted"
  exit 0
fi

headers=/usr/include/vulkan/vulkan_core.h
if [ ! -e "$headers" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libvulkan-dev >/dev/null
fi
[ -e "$headers" ] || { echo "the headers of Vulkan are missing (Debian: libvulkan-dev)" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${pip[@]}" download --no-deps --only-binary=:all: --python-version 3.12 --dest "$work" "$wanted"
"$python" -m zipfile -e "$work"/*.whl "$work/wheel"
# pip unpacks the source before it finds that it cannot build it here; that is all that is wanted.
mkdir "$work/pip"
TMPDIR=$work/pip "${pip[@]}" download --no-clean --no-deps --no-build-isolation --no-binary=:all: --ignore-requires-python \
  --dest "$work" "$wanted" >/dev/null 2>&1 || true
source=$(dirname "$(find "$work/pip" -name meson.build -path '*vapoursynth*' -not -path '*/subprojects/*' | head -1)")
"${pip[@]}" install --target "$work/cython" cython

# Of newer functions of Vulkan only the names are needed; Debian's headers may not have them yet.
{
  echo "#include <vulkan/vulkan_core.h>"
  sed -n 's/.*FN(VS_VK_[A-Z]*, *VS_VK_[A-Z]*, *\([A-Za-z0-9]*\)).*/\1/p' "$source/include/VSVulkan4.h" | sort -u | while read -r name; do
    grep -q "[*]PFN_vk$name)" "$headers" || echo "typedef PFN_vkVoidFunction PFN_vk$name;"
  done
} > "$work/vulkan_names.h"
PYTHONPATH=$work/cython "$python" -m cython -3 --cplus -I "$source/src/cython" "$source/src/cython/vapoursynth.pyx" -o "$work/module.cpp"
module=$work/wheel/vapoursynth/vapoursynth$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
g++ -O1 -std=c++20 -fPIC -shared -fno-char8_t -w -include "$work/vulkan_names.h" \
  -DVS_CURRENT_RELEASE="${wanted#*==}" -DVS_GRAPH_API -DVS_USE_LATEST_API -DVSSCRIPT_USE_LATEST_API -DVS_TARGET_OS_LINUX \
  -I "$source" -I "$source/include" -I "$source/src/cython" -I "$source/src/vsscript" -I "$source/src/common" \
  -I "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')" \
  "$work/module.cpp" "$source/src/common/wave.cpp" "$work/wheel/vapoursynth/libvapoursynth.so.4" -Wl,-rpath,'$ORIGIN' -o "$module"
rm "$work/wheel/vapoursynth/vapoursynth.abi3.so"
cp -r "$work/wheel/vapoursynth" "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
chmod +x "$("$python" -c 'import vapoursynth; print(vapoursynth.__file__)' | xargs dirname)/vspipe"
"$python" -c 'import vapoursynth; print("VapourSynth", vapoursynth.__version__)'
