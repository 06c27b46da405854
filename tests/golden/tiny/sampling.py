"""Writes sampling.json: what transformers' logits processors make of some score vectors.

Score i of vector v is ((mix(v, i) >> 16) - 32768) / 8192, an exact f32. The processors run in the order generate() runs them:
repetition penalty, suppressed ids, temperature, top-k, top-p (at least one id stays). `kept` lists the ids that stay, and
`probabilities` their share after the softmax.
"""
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (LogitsProcessorList, RepetitionPenaltyLogitsProcessor, SuppressTokensLogitsProcessor,
                          TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

from inputs import mix

WIDTH, HISTORY, SUPPRESSED = 48, [3, 7, 7, 11, 20, 31, 40], [2, 3, 30, 47]
GRID = [dict(penalty=p, temperature=t, top_k=k, top_p=q, suppress=s)
        for p, t, k, q, s in [(1.0, 1.0, 0, 1.0, []), (1.3, 1.0, 0, 1.0, []), (1.0, 0.7, 0, 1.0, []), (1.0, 1.0, 5, 1.0, []), (1.0, 1.0, 0, 0.8, []),
                              (1.0, 1.0, 0, 0.1, []), (1.0, 1.0, 1, 1.0, []), (1.05, 0.9, 50, 1.0, SUPPRESSED), (1.0, 1.0, 50, 0.8, []),
                              (1.05, 0.6, 20, 0.95, SUPPRESSED), (1.3, 1.7, 10, 0.5, SUPPRESSED)]]


def scores(vector):
    return torch.tensor(((mix(vector, np.arange(WIDTH)) >> np.uint32(16)).astype(np.int64) - 32768) / 8192, dtype=torch.float32)[None]


def processors(g):
    out = LogitsProcessorList()
    if g["penalty"] != 1:
        out.append(RepetitionPenaltyLogitsProcessor(g["penalty"]))
    if g["suppress"]:
        out.append(SuppressTokensLogitsProcessor(g["suppress"]))
    if g["temperature"] != 1:
        out.append(TemperatureLogitsWarper(g["temperature"]))
    if g["top_k"]:
        out.append(TopKLogitsWarper(g["top_k"]))
    if g["top_p"] < 1:
        out.append(TopPLogitsWarper(g["top_p"]))
    return out


def main():
    rows = []
    for vector in range(3):
        for g in GRID:
            s = processors(g)(torch.tensor([HISTORY]), scores(vector))[0]
            kept = s.isfinite().nonzero().flatten()
            p = s.softmax(-1)[kept]
            rows.append(dict(vector=vector, **g, kept=kept.tolist(), probabilities=[round(x, 7) for x in p.tolist()]))
    head = dict(transformers=transformers.__version__, width=WIDTH, history=HISTORY, first=scores(0)[0, :4].tolist())
    body = ",\n".join(" " + json.dumps(r) for r in rows)
    (Path(__file__).resolve().parent / "sampling.json").write_text(json.dumps(head)[:-1] + ', "cases": [\n' + body + "\n]}\n")


if __name__ == "__main__":
    main()
