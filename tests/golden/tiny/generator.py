"""The untrained tiny checkpoint: its tensors, and the integer generator that draws their values.

`generator.py --manifest` rewrites manifest.json from config.json; `generator.py DIR` writes a checkpoint folder whose tokenizer
and chat template are copied from the demo model's.

A value is bf16(offset / 4096 + (scale / 4096) * u), u = (k - 2^23) / 2^23, k = the top 24 bits of the tensor's next random
word. Words: splitmix64, whose state starts at FNV-1a-64(tensor name) xor the seed. Product and sum are rounded to f32, then
once more to bf16 (nearest, ties to even). No other operation is involved, so every language gets the same bits.
"""
import argparse
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
COPIED = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "chat_template.json"]
OWN = ["config.json", "generation_config.json", "preprocessor_config.json"]
SEED = 12

# (name pattern, offset, scale): the first that matches; scale None = sqrt(3 / fan in) * gain.
RULES = [
    (r"\.(q|k)_norm\.weight$", 1.5, 0.15),
    (r"(norm|norm1|norm2|ln_post|ln_q|layernorm)\.weight$", 1.0, 0.1),
    (r"layer_scale\.scale$|\.gamma$", 0.3, 0.1),
    (r"\.(alpha|beta)$", 0.0, 0.3),
    (r"\.bias$", 0.0, 0.1),
    (r"^code2wav\.code_embedding\.weight$", 0.0, 2.0),
    (r"\.codec_embedding\.", 0.0, 0.5),
    (r"\.pos_embed\.weight$", 0.0, 0.5),
    (r"embed_tokens\.weight$", 0.0, 1.0),
]
GAINS = [
    (r"\.mlp\.gate\.weight$", 4.0),  # spread router logits: no close decisions
    (r"lm_head|codec_head", 3.0),
    (r"^code2wav\.decoder\.\d\.block\.1\.", 0.7),
    (r"^code2wav\.decoder\.\d\.block\.\d\.conv2\.", 0.3),
    (r"^code2wav\.decoder\.6\.", 0.35),
]


def linear(name, out, inp, bias=True):
    return [(f"{name}.weight", [out, inp])] + ([(f"{name}.bias", [out])] if bias else [])


def layer_norm(name, width):
    return [(f"{name}.weight", [width]), (f"{name}.bias", [width])]


def attention(name, c, qk_norm):
    head = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    q, kv, h = c["num_attention_heads"] * head, c["num_key_value_heads"] * head, c["hidden_size"]
    t = [(f"{name}.{x}_proj.weight", s) for x, s in zip("qkvo", ([q, h], [kv, h], [kv, h], [h, q]))]
    return t + ([(f"{name}.{x}_norm.weight", [head]) for x in "qk"] if qk_norm else [])


def swiglu(name, hidden, inner):
    return [(f"{name}.{p}_proj.weight", s) for p, s in (("gate", [inner, hidden]), ("up", [inner, hidden]), ("down", [hidden, inner]))]


def decoder(name, c, qk_norm=True):
    """A stack of pre-norm decoder layers, dense or mixture of experts, and its last norm."""
    h, t = c["hidden_size"], []
    for i in range(c["num_hidden_layers"]):
        n = f"{name}.layers.{i}"
        t += [(f"{n}.input_layernorm.weight", [h]), (f"{n}.post_attention_layernorm.weight", [h])]
        t += attention(f"{n}.self_attn", c, qk_norm)
        if "num_experts" in c:
            t += [(f"{n}.mlp.gate.weight", [c["num_experts"], h])]
            for e in range(c["num_experts"]):
                t += swiglu(f"{n}.mlp.experts.{e}", h, c["moe_intermediate_size"])
            if c["shared_expert_intermediate_size"]:
                t += swiglu(f"{n}.mlp.shared_expert", h, c["shared_expert_intermediate_size"])
                t += [(f"{n}.mlp.shared_expert_gate.weight", [1, h])]
        else:
            t += swiglu(f"{n}.mlp", h, c["intermediate_size"])
        if not qk_norm:
            t += [(f"{n}.{x}_layer_scale.scale", [h]) for x in ("self_attn", "mlp")]
    return t + [(f"{name}.norm.weight", [h])]


def audio_tower(c):
    p, d, k = "thinker.audio_tower", c["d_model"], c["downsample_hidden_size"]
    t = []
    for i, inp in enumerate((1, k, k), 1):
        t += [(f"{p}.conv2d{i}.weight", [k, inp, 3, 3]), (f"{p}.conv2d{i}.bias", [k])]
    t += linear(f"{p}.conv_out", d, k * c["num_mel_bins"] // 8, bias=False)
    for i in range(c["encoder_layers"]):
        n = f"{p}.layers.{i}"
        for x in ("k", "v", "q", "out"):
            t += linear(f"{n}.self_attn.{x}_proj", d, d)
        t += layer_norm(f"{n}.self_attn_layer_norm", d) + layer_norm(f"{n}.final_layer_norm", d)
        t += linear(f"{n}.fc1", c["encoder_ffn_dim"], d) + linear(f"{n}.fc2", d, c["encoder_ffn_dim"])
    return t + layer_norm(f"{p}.ln_post", d) + linear(f"{p}.proj1", d, d) + linear(f"{p}.proj2", c["output_dim"], d)


def vision_tower(c):
    p, h, m = "thinker.visual", c["hidden_size"], c["hidden_size"] * c["spatial_merge_size"] ** 2
    t = [(f"{p}.patch_embed.proj.weight", [h, 3, c["temporal_patch_size"], c["patch_size"], c["patch_size"]]),
         (f"{p}.patch_embed.proj.bias", [h]), (f"{p}.pos_embed.weight", [c["num_position_embeddings"], h])]
    for i in range(c["depth"]):
        n = f"{p}.blocks.{i}"
        t += layer_norm(f"{n}.norm1", h) + layer_norm(f"{n}.norm2", h) + linear(f"{n}.attn.qkv", 3 * h, h) + linear(f"{n}.attn.proj", h, h)
        t += linear(f"{n}.mlp.linear_fc1", c["intermediate_size"], h) + linear(f"{n}.mlp.linear_fc2", h, c["intermediate_size"])
    for n, width in [(f"{p}.merger", h)] + [(f"{p}.merger_list.{j}", m) for j in range(len(c["deepstack_visual_indexes"]))]:
        t += layer_norm(f"{n}.ln_q", width) + linear(f"{n}.mlp.0", m, m) + linear(f"{n}.mlp.2", c["out_hidden_size"], m)
    return t


def thinker(c):
    x = c["text_config"]
    t = [("thinker.model.embed_tokens.weight", [x["vocab_size"], x["hidden_size"]])]
    t += audio_tower(c["audio_config"]) + vision_tower(c["vision_config"]) + decoder("thinker.model", x)
    return t + [("thinker.lm_head.weight", [x["vocab_size"], x["hidden_size"]])]


def talker(c):
    x, p = c["text_config"], c["code_predictor_config"]
    t = decoder("talker.model", x) + [(f"talker.{n}.weight", [x["vocab_size"], x["hidden_size"]]) for n in ("model.codec_embedding", "codec_head")]
    for n in ("text_projection", "hidden_projection"):
        t += linear(f"talker.{n}.linear_fc1", x["intermediate_size"], c["thinker_hidden_size"])
        t += linear(f"talker.{n}.linear_fc2", x["hidden_size"], x["intermediate_size"])
    t += decoder("talker.code_predictor.model", p)
    for n in ("model.codec_embedding", "lm_head"):
        t += [(f"talker.code_predictor.{n}.{i}.weight", [p["vocab_size"], p["hidden_size"]]) for i in range(p["num_code_groups"] - 1)]
    return t


def code2wav(c):
    h, d, p = c["hidden_size"], c["decoder_dim"], "code2wav"
    t = [(f"{p}.code_embedding.weight", [c["codebook_size"] * c["num_quantizers"], h])] + decoder(f"{p}.pre_transformer", c, qk_norm=False)

    def conv(name, *shape, out=None):
        return [(f"{name}.conv.weight", list(shape)), (f"{name}.conv.bias", [out or shape[0]])]
    for i, r in enumerate(c["upsampling_ratios"]):
        n = f"{p}.upsample.{i}"
        t += conv(f"{n}.0", h, h, r) + conv(f"{n}.1.dwconv", h, 1, 7) + layer_norm(f"{n}.1.norm", h)
        t += linear(f"{n}.1.pwconv1", 4 * h, h) + linear(f"{n}.1.pwconv2", h, 4 * h) + [(f"{n}.1.gamma", [h])]
    t += conv(f"{p}.decoder.0", d, h, 7)

    def snake(name, width):
        return [(f"{name}.alpha", [width]), (f"{name}.beta", [width])]
    for i, r in enumerate(c["upsample_rates"]):
        n, inp, out = f"{p}.decoder.{i + 1}.block", d >> i, d >> (i + 1)
        t += snake(f"{n}.0", inp) + conv(f"{n}.1", inp, out, 2 * r, out=out)
        for j in (2, 3, 4):
            t += snake(f"{n}.{j}.act1", out) + conv(f"{n}.{j}.conv1", out, out, 7) + snake(f"{n}.{j}.act2", out) + conv(f"{n}.{j}.conv2", out, out, 1)
    last = len(c["upsample_rates"]) + 1
    return t + snake(f"{p}.decoder.{last}", d >> (last - 1)) + conv(f"{p}.decoder.{last + 1}", 1, d >> (last - 1), 7)


def fan_in(name, shape):
    """Terms summed into one output; the transposed convolutions [in, out, k] have one (k = stride) or two (k = 2 stride) taps."""
    if re.search(r"upsample\.\d\.0\.conv\.weight$", name):
        return shape[0]
    if re.search(r"decoder\.\d\.block\.1\.conv\.weight$", name):
        return 2 * shape[0]
    return math.prod(shape[1:])


def law(name, shape):
    """Offset and scale of a tensor, in units of 1/4096."""
    for pattern, offset, scale in RULES:
        if re.search(pattern, name):
            return round(offset * 4096), round(scale * 4096)
    gain = next((g for p, g in GAINS if re.search(p, name)), 1.0)
    return 0, round(math.sqrt(3 / fan_in(name, shape)) * gain * 4096)


def values(name, shape, offset, scale, seed):
    """The tensor as bf16 bit patterns (uint16)."""
    state = 0xCBF29CE484222325
    for b in name.encode():
        state = ((state ^ b) * 0x100000001B3) & (2**64 - 1)
    n = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
    z = np.uint64(state ^ seed) + n * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    k = ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.int32) - 2**23
    u = k.astype(np.float32) * np.float32(2.0**-23)
    v = np.float32(offset / 4096) + np.float32(scale / 4096) * u
    bits = v.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).reshape(shape)


def manifest():
    c = json.loads((HERE / "config.json").read_text())
    names = thinker(c["thinker_config"]) + talker(c["talker_config"]) + code2wav(c["code2wav_config"])
    rows = [(n, s, *law(n, s)) for n, s in names]
    total, checksum = 0, 0
    for n, s, offset, scale in rows:
        b = values(n, s, offset, scale, SEED).reshape(-1).astype(np.uint64)
        checksum += int(((np.arange(total + 1, total + 1 + b.size, dtype=np.uint64)) * b).sum(dtype=np.uint64))
        total += b.size
    # checksum: sum of (bits of value i) * (i + 1) over all values in file order, modulo 2^64.
    example = {n: [f"{x:04x}" for x in values(n, s, o, c, SEED).reshape(-1)[:4]] for n, s, o, c in rows[:: len(rows) // 3]}
    head = dict(seed=SEED, dtype="BF16", parameters=total, checksum=f"{checksum % 2**64:016x}", first_values=example, unit="1/4096",
                columns=["name", "shape", "offset", "scale"])
    lines = ",\n".join("  " + json.dumps(r, separators=(",", ":")) for r in rows)
    (HERE / "manifest.json").write_text(json.dumps(head)[:-1] + ',\n "tensors": [\n' + lines + "\n]}\n")
    print(f"{len(rows)} tensors, {total} parameters")


def write(out, tokenizer):
    """A checkpoint folder: model.safetensors by hand, so that its order is the manifest's."""
    out.mkdir(parents=True, exist_ok=True)
    m = json.loads((HERE / "manifest.json").read_text())
    header, data, end = {"__metadata__": {"format": "pt"}}, [], 0
    for n, s, offset, scale in m["tensors"]:
        data.append(values(n, s, offset, scale, m["seed"]).tobytes())
        header[n] = dict(dtype=m["dtype"], shape=s, data_offsets=[end, end + len(data[-1])])
        end += len(data[-1])
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(out / "model.safetensors", "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.writelines(data)
    for name in OWN:
        shutil.copyfile(HERE / name, out / name)
    for name in COPIED:
        shutil.copyfile(tokenizer / name, out / name)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("out", nargs="?", type=Path, help="checkpoint folder to write")
    a.add_argument("--tokenizer", type=Path, default=HERE.parents[2] / "assets/omni-demo", help="the demo model's folder")
    a.add_argument("--manifest", action="store_true", help="rewrite manifest.json")
    a = a.parse_args()
    if a.manifest:
        manifest()
    if a.out:
        write(a.out, a.tokenizer)


if __name__ == "__main__":
    main()
