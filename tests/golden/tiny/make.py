"""Writes golden.json and golden.safetensors from the tiny checkpoint. `make.py CHECKPOINT` (see generator.py)."""
import argparse
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

import code2wav
import inputs
from code2wav import spread
from reference import FRAMES, MARGIN, NEW_TOKENS, PENALTY, Reference

HERE = Path(__file__).resolve().parent


def thinker_rows(ids, media):
    """The ends of the prompt and of every run of one kind of media rows, and some rows between."""
    kind = [0, *(i if i in media else 0 for i in ids), 0]
    ends = {i - 1 + k for i in range(1, len(kind)) for k in (-1, 0) if kind[i - 1] != kind[i] and kind[i + k]}
    return sorted({*ends, *spread(len(ids), 5)})


def audio_rows(lengths):
    """Rows at the edges of clips, chunks (13 rows) and attention windows (104 rows), and some rows between."""
    at, start = [], 0
    for n in map(int, lengths):
        at += [start + r for r in (0, 12, 13, 103, 104, n - 1) if r < n]
        start += n
    return sorted({*at, *spread(start, 4)})


def media_facts(i, kept):
    """Frames and grids of the media, and what enters the towers: some mel frames, some patches as the u8 they were scaled from."""
    facts, rows = {}, {}
    if "input_features" in i:
        lengths = i["feature_attention_mask"].sum(1).tolist()
        mels = [m[:, :n].T for m, n in zip(i["input_features"], lengths)]
        facts["mel"] = [dict(frames=n, mean=m.mean().item(), mean_abs=m.abs().mean().item()) for n, m in zip(lengths, mels)]
        rows["audio"] = audio_rows(_get_feat_extract_output_lengths(i["feature_attention_mask"].sum(1)))
        for k, m in enumerate(mels):
            rows[f"mel.{k}"] = at = spread(len(m), 4)
            kept[f"audio/mel.{k}"] = m[at]
    for stage, key in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if key in i:
            facts[f"{stage}_grid_thw"] = i[f"{stage}_grid_thw"].tolist()
            x = i[key]
            rows[stage] = at = spread(len(x), 5)
            u8 = (x * 127.5 + 127.5).round()
            assert torch.allclose((u8 - 127.5) / 127.5, x, atol=1e-6)
            facts[f"{stage}_mean_u8"] = u8.mean().item()
            kept[f"{stage}/patches"] = u8[at].to(torch.uint8)
            rows[f"{stage}.merged"] = spread(len(x) // 4, 5)
    if "video_second_per_grid" in i:
        facts["second_per_grid"] = i["video_second_per_grid"].tolist()
    return facts, rows


def first_clip_alone(ref, i):
    """The audio tower pads a short clip's only chunk to 100 frames when a longer clip is beside it: the same clip without that."""
    n = int(i["feature_attention_mask"][0].sum())
    return ref.m.thinker.audio_tower(i["input_features"][0, :, :n], feature_lens=torch.tensor([n])).last_hidden_state


def sample(kept, rows):
    """Cuts the tensors that have a row a token, a patch or an audio frame to the rows of their stage."""
    out = {}
    for key, x in kept.items():
        stage, layer = key.split("/")
        layer = layer.split(".")[0]
        if layer in ("merged", "deepstack"):
            x = x[rows[f"{stage}.merged"]]
        elif layer in ("stem", "embed", "embeds", "layer", "router", "weights", "norm") or key == "audio/rows":
            x = x[rows[stage]]
        out[key] = x
    return out


def one(ref, name, tensors):
    c = inputs.case(name)
    facts, kept, i, margins = ref.run(c)
    assert min(margins.values()) > MARGIN, (name, margins)
    th = ref.m.config.thinker_config
    media, rows = media_facts(i, kept)
    rows["thinker"] = thinker_rows(facts["prompt_ids"], (th.audio_token_id, th.image_token_id, th.video_token_id))
    if "talker/embeds" in kept:
        n = len(kept["talker/embeds"])
        rows["talker"] = sorted({*spread(n - 9, 4), *range(n - 9, n)})
        kept["predictor/logits"] = torch.stack([kept.pop(f"predictor/logits.{k}") for k in range(15)])
        wave = kept.pop("talker/wav")
        code2wav.keep(tensors, f"{name}/talker/wav", wave)
        facts.update(samples=len(wave), wav_mean_abs=wave.abs().mean().item())
    if name == "audio-two":
        kept["audio/alone"] = first_clip_alone(ref, i)
    tensors.update({f"{name}/{k}": v for k, v in sample(kept, rows).items()})
    del c["name"], c["stops"]
    return dict(c, **facts, **media, rows=rows, margins={k: round(v, 5) for k, v in margins.items()})


def media_check():
    """Drawn media to compare with: the first values, and the sum of value i * (i + 1) over all of them (rows, columns, colours)."""
    out = []
    for part in (dict(type="audio", samples=4000, seed=7), dict(type="image", height=40, width=50, seed=8),
                 dict(type="video", frames=2, height=20, width=30, seed=9)):
        x = inputs.draw(part).astype(int).reshape(-1)
        out.append(dict(part, first=x[:8].tolist(), checksum=int((x * range(1, x.size + 1)).sum())))
    return out


def write_json(path, head, cases):
    """One field a line, so that a change can be read."""
    body = []
    for name, c in cases.items():
        body.append(f' "{name}": {{\n' + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in c.items() if v is not None) + "\n }")
    path.write_text(json.dumps(head)[:-1] + ', "cases": {\n' + ",\n".join(body) + "\n}}\n")


@torch.no_grad()
def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("checkpoint")
    a = a.parse_args()
    ref, tensors, cases = Reference(a.checkpoint), {}, {}
    for name in inputs.CASES:
        cases[name] = one(ref, name, tensors)
        print(name, len(cases[name]["prompt_ids"]), cases[name]["margins"], flush=True)
    facts, out = code2wav.golden(ref.m.code2wav)
    cases.update(facts)
    tensors.update(out)
    manifest = json.loads((HERE / "manifest.json").read_text())
    head = dict(versions=dict(torch=torch.__version__.split("+")[0], transformers=transformers.__version__), checksum=manifest["checksum"],
                max_new_tokens=NEW_TOKENS, max_frames=FRAMES, talker_repetition_penalty=PENALTY, margin=MARGIN, media=media_check())
    write_json(HERE / "golden.json", head, cases)
    tensors = {k: (v if v.dtype in (torch.float32, torch.uint8) else v.to(torch.int32)).contiguous() for k, v in tensors.items()}
    (HERE / "golden.safetensors").write_bytes(save(tensors))


if __name__ == "__main__":
    main()
