#!/usr/bin/env bash
# Ours and transformers on the demo model, one after the other in one run, with the ratio of each figure.
# usage: benches/compare.sh PYTHON [THREADS]     PYTHON has torch 2.11.0, torchvision 0.26.0 and transformers 5.17.0
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 threads=${2:-2}
ours=$(mktemp) theirs=$(mktemp)
trap 'rm -f "$ours" "$theirs"' EXIT
cargo build --quiet --release --workspace --bench stages
RAYON_NUM_THREADS=$threads "$(ls -t "${CARGO_TARGET_DIR:-target}"/release/deps/stages-* | grep -v "\.d$" | head -n 1)" >"$ours"
"$python" benches/reference.py --threads "$threads" >"$theirs"
"$python" - "$ours" "$theirs" <<'PY'
import json, sys
ours, theirs = ({r["what"]: r for r in map(json.loads, open(f)) } for f in sys.argv[1:])
print(f"{'':22}{'ours':>10}{'transformers':>14}   ratio")
for what, r in theirs.items():
    if what in ours and r["unit"] != "frames":
        a, b = ours[what]["value"], r["value"]
        print(f"{what:22}{a:10.4f}{b:14.4f} {r['unit']:9} {b / a:6.1f}x")
PY
