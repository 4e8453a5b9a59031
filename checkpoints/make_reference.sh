#!/usr/bin/env bash
# Makes checkpoints/reference anew, the run that ships: trains mnist.yaml, keeps what others need of it, evaluates it.
# From a clean commit, in the virtual environment that is to be used: bash checkpoints/make_reference.sh
set -euo pipefail
cd "$(dirname "$0")/.."
[ -z "$(git status --porcelain)" ] || { echo "commit first: the results name the commit" >&2; exit 1; }

made=checkpoints/reference-run # git ignores it; start again and it goes on
if [ -d $made ]; then python -m advgan.train --resume $made/0; else
  python -m advgan.train --config mnist.yaml --set name=reference-run
fi
python -m advgan.evaluate --run $made/0 --restarts 5

rm -rf checkpoints/reference
mkdir -p checkpoints/reference/evaluation
for name in summary.json processes.json metrics.jsonl target.json \
  generator.keras discriminator.keras target.keras result.png curves.png; do
  cp $made/0/$name checkpoints/reference/
done
# A run keeps absolute paths, to be resumed from any folder; what ships names no folder of the machine that made it.
python - $made/0/config.yaml > checkpoints/reference/config.yaml <<'PYTHON'
import sys
from pathlib import Path

from advgan.config import dump_config, load_config

config = load_config(Path(sys.argv[1]))
output = config.output.model_copy(update={"directory": "checkpoints"})
print(dump_config(config.model_copy(update={"output": output})), end="")
PYTHON
for name in evaluation.json report.html grid.png success_against_epsilon.png; do
  cp $made/0/evaluation/$name checkpoints/reference/evaluation/
done
du -sh checkpoints/reference
