#!/bin/bash
# tidy.sh BUILD-DIR ROOM: clang-tidy over one room of src/, with the flags of that build.
cd "$(dirname "$0")/../.." || exit 1
command -v clang-tidy >/dev/null || { echo "SKIPPED: clang-tidy is not installed"; exit 77; }
set -o pipefail
# one file a call: clang-tidy 14 invents uninitialised va_lists when it is given several;
# gcc's own warning switches mean nothing to clang; the count of suppressed ones is noise
find "src/$2" -name '*.c' -print0 | xargs -0 -n 1 clang-tidy --quiet -p "$1" --extra-arg=-Wno-unknown-warning-option 2>&1 |
	grep -vE '^[0-9]+ warnings? (generated|treated)|^$'
exit "${PIPESTATUS[1]}"
