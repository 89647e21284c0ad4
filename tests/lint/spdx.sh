#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every source file and script names its licence in the first line, or in the second after #!.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

while IFS= read -r file; do
  head -n 2 "$file" | grep -q 'SPDX-License-Identifier: Apache-2\.0$' || report "$file"
done < <(project_files '*.cpp' '*.hpp' '*.sh' '*.py' '*.awk' '*.gp' run)
finish "begin the file with // SPDX-License-Identifier: Apache-2.0"
