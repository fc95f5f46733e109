#!/bin/bash
# Every C file is laid out as .clang-format says.
cd "$(dirname "$0")/../.." || exit 1
command -v clang-format >/dev/null || { echo "SKIPPED: clang-format is not installed"; exit 77; }
find src include tests -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run --Werror
