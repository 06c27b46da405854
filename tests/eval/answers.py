"""Writes answers.json: what transformers answers to every case, whether or not it is what the case expects.
usage: answers.py MODEL_DIR      (greedy, float32, CPU, one thread, as in score.py)"""
import json
import sys
from pathlib import Path

import torch

from score import Ref

HERE = Path(__file__).resolve().parent


def main():
    torch.set_num_threads(1)
    ref = Ref(sys.argv[1])
    answers, wrong = {}, []
    for c in map(json.loads, open(HERE / "cases.jsonl")):
        answers[c["id"]] = ref.reply(c["messages"], HERE)[0]
        if answers[c["id"]] != c["expect"]:
            wrong.append((c["id"], c["expect"], answers[c["id"]]))
    # One answer a line, so that a change can be read.
    (HERE / "answers.json").write_text(json.dumps(answers, indent=0, ensure_ascii=False) + "\n")
    print(f"{len(answers) - len(wrong)} of {len(answers)} as expected; not:", *wrong, sep="\n")


if __name__ == "__main__":
    main()
