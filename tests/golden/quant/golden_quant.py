"""Golden bytes of quantized tensors, written by the real packages.

usage: golden_quant.py PART OUT_DIR      with PART one of
    tables     needs ml_dtypes                    -> tables.safetensors, inputs.safetensors
    modelopt   needs nvidia-modelopt, torch       -> modelopt.safetensors
    compressed needs compressed-tensors, torch    -> compressed_tensors.safetensors
    bnb        needs bitsandbytes, torch          -> bitsandbytes.safetensors, demo_nf4.txt
    int4       needs auto-round, torch            -> int4.safetensors
Every part runs by itself, because the packages do not live well in one environment. All of it runs on the CPU with one
thread; the inputs come from one seeded generator, so a second run gives the same files. The versions that wrote a file
stand in its safetensors metadata.

Names are MATRIX.FORMAT.TENSOR; TENSOR is the name on disk in a checkpoint of that format, `value` is what the package
itself dequantizes to (f32; bf16 for MX formats, where that is exact; see README.md).

Packed by formula instead of by a package: `desc` in int4 (GPTQ with desc_act and v2 zero points); its value is
auto-round's own reading of the packed words. AWQ, GPTQ v1 and AutoRound words are packed by auto-round's classes."""
import hashlib
import importlib.metadata
import json
import re
import sys
from pathlib import Path

import numpy as np

# ---------------------------------------------------------------------------------------------------------------- inputs
# The spec's vector: tensor amax 1.5, so s2 = 1.5/2688, block scale 448, codes 10 2a 4b 5c 6d 6e 7e 7f.
SPEC = np.array([0, .1, -.2, .3, -.4, .5, -.6, .7, -.8, .9, -1.0, 1.1, -1.2, 1.3, -1.4, 1.5], np.float32)
# Every tie of E2M1 with both signs, a saturated value and a negative zero. Exact under a block scale of one.
TIES = np.array([.25, .75, 1.25, 1.75, 2.5, 3.5, 5, -.25, -.75, -1.25, -1.75, -2.5, -3.5, -5, 6, -0.0], np.float32)


def inputs():
    """The matrices W[N,K] that every 4-bit float format is made from, in a fixed order."""
    r = np.random.Generator(np.random.PCG64(20263))

    def normal(n, k, std=0.02):
        return (r.standard_normal((n, k)) * std).astype(np.float32)
    m = {}
    m["spec"] = np.stack([SPEC, SPEC / np.float32(10)])
    # amax 2688 makes s2 exactly 1, a block maximum of 6 makes the block scale exactly 1, so scaled values are the input.
    m["ties"] = np.concatenate([np.concatenate([TIES, TIES]),
                                np.concatenate([np.full(15, 100, np.float32), [2688], TIES * np.float32(0.5)])]).reshape(2, 32)
    m["ties"] = m["ties"].astype(np.float32)
    m["n16"] = normal(2, 16)
    m["n32"] = normal(2, 32)
    m["n64"] = normal(2, 64)
    m["n96"] = normal(1, 96, 1.0)
    m["n128"] = normal(1, 128)
    # A few values a thousand times the rest: the other blocks come near the bottom of E4M3.
    m["outlier"] = normal(1, 64)
    m["outlier"][0, 5] = 20
    m["outlier"][0, 40] = -31
    # Blocks of zeros (one of 16, one of 32) among ordinary ones, negative zeros too.
    m["zeroblock"] = normal(1, 64)
    m["zeroblock"][0, 16:32] = 0
    m["zeroblock"][0, 32:64] = -0.0
    m["zeros"] = np.zeros((1, 32), np.float32)
    # Rows over 60 binary orders: ordinary block scales; then ones that E4M3 rounds to zero, where ModelOpt takes 2^-9 (and
    # codes that are not zero) and compressed-tensors 0.125 (and codes that are); then far below.
    m["tiny"] = normal(4, 32, 1.0) * np.array([[2.0 ** -60], [2.0 ** -72], [2.0 ** -79.5], [2.0 ** -118]], np.float32)
    return m


MX = [k for k in ("ties", "n32", "n64", "n96", "n128", "outlier", "zeroblock", "zeros", "tiny")]


def small(seed, n, k, std=1.0):
    return (np.random.Generator(np.random.PCG64(seed)).standard_normal((n, k)) * std).astype(np.float32)


def fp8_inputs():
    """tensor, channel: whole; rows, cols: more than one 128 x 128 block, the last one ragged; mx: 32-wide blocks."""
    m = dict(tensor=small(1, 2, 16), channel=small(2, 3, 16), rows=small(3, 130, 2), cols=small(4, 1, 144), mx=small(5, 2, 64))
    m["channel"][1] *= np.float32(100)
    m["rows"][128:] *= np.float32(0.01)
    m["cols"][:, 128:] *= np.float32(30)
    m["mx"][0, 32:] = 0
    m["mx"][1, :32] *= np.float32(1e4)
    return m


# ------------------------------------------------------------------------------------------------------------------ file
def versions(*packages):
    return {p: importlib.metadata.version(p) for p in packages}


def save(tensors, path, meta):
    """A safetensors file with compact, sorted header: the library's own writer would do, but not byte by byte the same."""
    import torch
    kinds = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.uint8: "U8", torch.int8: "I8",
             torch.int32: "I32", torch.int64: "I64", torch.float8_e4m3fn: "F8_E4M3"}
    head, body = {"__metadata__": {k: str(v) for k, v in meta.items()}}, b""
    # Widest elements first keeps every tensor aligned to its element.
    for name in sorted(tensors, key=lambda n: (-tensors[n].element_size(), n)):
        t = tensors[name].detach().contiguous()
        b = t.reshape(-1).view(torch.uint8).numpy().tobytes()
        head[name] = {"dtype": kinds[t.dtype], "shape": list(t.shape), "data_offsets": [len(body), len(body) + len(b)]}
        body += b
    h = json.dumps(head, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    Path(path).write_bytes(len(h).to_bytes(8, "little") + h + body)
    print(path, 8 + len(h) + len(body), "bytes,", len(tensors), "tensors")


# ---------------------------------------------------------------------------------------------------------------- tables
def tables(out):
    import ml_dtypes as ml
    import torch
    byte = np.arange(256, dtype=np.uint8)
    # float4_e2m1fn is one code a byte in numpy.
    e2m1 = np.arange(16, dtype=np.uint8).view(ml.float4_e2m1fn).astype(np.float32)
    e4m3 = byte.view(ml.float8_e4m3fn).astype(np.float32)
    e8m0 = byte.view(ml.float8_e8m0fnu).astype(np.float32)
    # One pattern for every NaN, so that the file can be compared byte by byte.
    e4m3[np.isnan(e4m3)] = np.nan
    e8m0[np.isnan(e8m0)] = np.nan
    t = dict(e2m1=e2m1, e4m3=e4m3, e8m0=e8m0)
    # What a cast does with ties, with subnormals and with values past the end: x (f32), the byte.
    x = np.array([0, -0.0, 2 ** -10, 2 ** -10 * 1.001, 2 ** -9, 3 * 2 ** -10, 2 ** -6, 1 / 3, 1, 1.0625, 1.1875, 17, 19, 44.8, 240,
                  432, 448, 456, 464, -464, -448, -1.0625], np.float32)
    t["cast.x"] = x
    t["cast.e4m3"] = x.astype(ml.float8_e4m3fn).view(np.uint8)
    y = np.concatenate([TIES, [0.1, -0.1, 0.26, 5.01, 7, -7, 1e9, 3.4999998, 0.74999994, 1.7500001]]).astype(np.float32)
    t["cast.y"] = y
    t["cast.e2m1"] = y.astype(ml.float4_e2m1fn).view(np.uint8)
    save({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in t.items()}, out / "tables.safetensors", versions("ml_dtypes"))
    m = {f"{k}": torch.from_numpy(v) for k, v in inputs().items()}
    m.update({f"fp8.{k}": torch.from_numpy(v) for k, v in fp8_inputs().items()})
    save(m, out / "inputs.safetensors", versions("numpy"))


def exact_bf16(v):
    import torch
    b = v.to(torch.bfloat16)
    assert torch.equal(b.float(), v), "not exact in bf16"
    return b


# -------------------------------------------------------------------------------------------------------------- modelopt
def modelopt(out):
    import torch
    from modelopt.torch.quantization.qtensor import FP8QTensor, MXFP4QTensor, MXFP8QTensor, NVFP4QTensor
    t = {}
    for name, w in inputs().items():
        w = torch.from_numpy(w)
        q, s, s2 = NVFP4QTensor.quantize(w.clone(), 16)
        t[f"{name}.nvfp4.weight"], t[f"{name}.nvfp4.weight_scale"], t[f"{name}.nvfp4.weight_scale_2"] = q._quantized_data, s, s2
        t[f"{name}.nvfp4.value"] = q.dequantize(torch.float32, scale=s, double_scale=s2, block_sizes={-1: 16})
        if name in MX:
            q, s = MXFP4QTensor.quantize(w.clone(), 32)
            t[f"{name}.mxfp4.weight"], t[f"{name}.mxfp4.weight_scale"] = q._quantized_data, s.reshape(w.shape[0], -1)
            t[f"{name}.mxfp4.value"] = exact_bf16(q.dequantize(torch.float32, scale=s, block_sizes={-1: 32}))
    # A smaller tensor quantized with the tensor scale of a larger one, as in fused q/k/v and gate/up.
    w, s2 = torch.from_numpy(inputs()["n64"]), torch.tensor(0.25) / 2688
    q, s, _ = NVFP4QTensor.quantize(w.clone(), 16, None, s2)
    t.update({"n64.shared.weight": q._quantized_data, "n64.shared.weight_scale": s, "n64.shared.weight_scale_2": s2})
    f = {k: torch.from_numpy(v) for k, v in fp8_inputs().items()}
    for name, kw in dict(tensor={}, channel=dict(axis=0), rows=dict(block_sizes={-1: 128, -2: 128}), cols=dict(block_sizes={-1: 128, -2: 128})).items():
        q, s = FP8QTensor.quantize(f[name], **kw)
        if name == "cols":          # as in releases with weight_scale_inv: the scale is stored in bf16, and used as stored
            s = s.to(torch.bfloat16)
            q, _ = FP8QTensor.quantize(f[name], s.float(), **kw)
        t[f"fp8.{name}.weight"], t[f"fp8.{name}.weight_scale"] = q._quantized_data, s
        t[f"fp8.{name}.value"] = q.dequantize(torch.float32, scale=s.float(), **({"block_sizes": kw["block_sizes"]} if "block_sizes" in kw else {}))
    q, s = MXFP8QTensor.quantize(f["mx"])
    t["fp8.mx.weight"], t["fp8.mx.weight_scale"] = q._quantized_data, s
    t["fp8.mx.value"] = exact_bf16(q.dequantize(torch.float32, scale=s))
    save(t, out / "modelopt.safetensors", versions("nvidia-modelopt", "torch"))


# ---------------------------------------------------------------------------------------------------- compressed-tensors
def compressed(out):
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, preset_name_to_scheme
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
    from compressed_tensors.compressors import unpack_fp4_from_uint8

    def qparams(w, args, groups=None):
        """Scale and zero point as an observer of minimum and maximum makes them; `groups` shapes w for the reduction."""
        g = w if groups is None else groups(w)
        gparam = generate_gparam(w.amin(), w.amax()) if args.strategy == "tensor_group" else None
        s, z = calculate_qparams(g.amin(-1), g.amax(-1), args, global_scale=gparam)
        return s, z, gparam

    def run(fmt, scheme, w, groups=None, prefix=""):
        s, z, g = qparams(w, scheme.weights, groups)
        sd = {"weight": w, "weight_scale": s, "weight_zero_point": z}
        if g is not None:
            sd["weight_global_scale"] = g
        c = BaseCompressor.get_value_from_registry(fmt)
        sd = c.compress(sd, scheme)
        return sd, c.decompress(sd, scheme)["weight"]

    t = {}
    nv, mx4, mx8 = (preset_name_to_scheme(n, ["Linear"]) for n in ("NVFP4A16", "MXFP4A16", "MXFP8A16"))
    blocks = {16: lambda w: w.unflatten(-1, (-1, 16)), 32: lambda w: w.unflatten(-1, (-1, 32))}

    def nvfp4(name, w):
        sd, back = run("nvfp4-pack-quantized", nv, w, blocks[16])
        t.update({f"{name}.{k}": v for k, v in sd.items()})
        # decompress() gives bf16; the same call in f32:
        v = dequantize(unpack_fp4_from_uint8(sd["weight_packed"], *w.shape, dtype=torch.float32), sd["weight_scale"].float(),
                       args=nv.weights, global_scale=sd["weight_global_scale"], dtype=torch.float32)
        assert torch.equal(v.to(torch.bfloat16), back)
        t[f"{name}.value"] = v
    for name, w in inputs().items():
        w = torch.from_numpy(w)
        nvfp4(f"{name}.nvfp4", w)
        if name in MX:
            sd, back = run("mxfp4-pack-quantized", mx4, w, blocks[32])
            t.update({f"{name}.mxfp4.{k}": v for k, v in sd.items()})
            t[f"{name}.mxfp4.value"] = exact_bf16(back.float())
    # A bf16 weight: block maxima and the global scale are then rounded to bf16 on the way.
    w = torch.from_numpy(inputs()["n64"]).to(torch.bfloat16)
    nvfp4("n64.bf16", w)
    del t["n64.bf16.value"]
    f = {k: torch.from_numpy(v) for k, v in fp8_inputs().items()}
    fp8 = lambda **k: QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=8, type="float", symmetric=True, **k))
    sd, back = run("float-quantized", fp8(strategy="channel"), f["channel"], lambda w: w.unsqueeze(1))
    t.update({f"fp8.channel.{k}": v for k, v in sd.items()}, **{"fp8.channel.value": back})
    sd, back = run("mxfp8-quantized", mx8, f["mx"], blocks[32])
    t.update({f"fp8.mx.{k}": v for k, v in sd.items()}, **{"fp8.mx.value": exact_bf16(back.float())})
    # 128 x 128 blocks: the last one is padded with zeros.
    w = torch.nn.functional.pad(f["rows"], (0, 126, 0, 126))
    sd, back = run("float-quantized", fp8(strategy="block", block_structure=[128, 128]), f["rows"],
                   lambda _: w.reshape(2, 128, 1, 128).transpose(1, 2).flatten(-2))
    t.update({f"fp8.rows.{k}": v for k, v in sd.items()})
    # Packed integers; the asymmetric one has rows that do not fill the last word of zero points.
    i4 = lambda **k: QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=32, **k))
    for name, sym, w in (("sym", True, small(6, 3, 64)), ("asym", False, small(7, 12, 32) + np.float32(0.4))):
        sd, back = run("pack-quantized", i4(symmetric=sym), torch.from_numpy(w), blocks[32])
        t.update({f"int4.{name}.{k}": v for k, v in sd.items()}, **{f"int4.{name}.value": back})
    save(t, out / "compressed_tensors.safetensors", versions("compressed-tensors", "torch"))


# ---------------------------------------------------------------------------------------------------------- bitsandbytes
def bnb(out):
    import torch
    from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit
    t = {}

    def put(prefix, q, state, value):
        t[f"{prefix}.weight"] = q
        for k, v in state.as_dict(packed=True).items():
            # The three tables are the same for every tensor of a kind: stored once, without the prefix.
            k2 = {"quant_map": f"{state.quant_type}.quant_map", "nested_quant_map": "nested_quant_map"}.get(k, f"{prefix}.weight.{k}")
            assert k2 not in t or (k2 in ("nf4.quant_map", "fp4.quant_map", "nested_quant_map") and torch.equal(t[k2], v))
            t[k2] = v
        if value is not None:
            t[f"{prefix}.value"] = value
    # k64: whole rows; cross: blocks cross rows and the last is short; odd: an odd number of values.
    mats = dict(k64=small(8, 1, 64), cross=small(9, 3, 48), odd=small(10, 3, 21))
    mats["cross"][0, 3] = 9
    for name, w in mats.items():
        for kind in ("nf4", "fp4"):
            for nested in (False, True) if name == "cross" else (False,):
                q, st = quantize_4bit(torch.from_numpy(w), compress_statistics=nested, quant_type=kind)
                v = dequantize_4bit(q, st)
                put(f"{name}.{kind}{'.nested' if nested else ''}", q, st, v)
    # Codes kept in a bf16 tensor (bnb_4bit_quant_storage): the same bytes.
    q, st = quantize_4bit(torch.from_numpy(mats["k64"]), quant_type="nf4", quant_storage=torch.bfloat16)
    assert torch.equal(q.reshape(-1).view(torch.uint8), t["k64.nf4.weight"].reshape(-1))
    t["k64.nf4.storage_bf16.weight"] = q
    # 257 blocks, so that a second block of absmax begins: byte i of the codes is (37 i + 11) mod 256 and is not stored;
    # `value` holds the flat elements from 16320 on (the last 64 of the first 256 blocks, and the 257th), `sha256` all.
    w = small(11, 257, 64) * np.linspace(0.5, 4, 257, dtype=np.float32)[:, None]
    _, st = quantize_4bit(torch.from_numpy(w), compress_statistics=True, quant_type="nf4")
    q = torch.from_numpy(((np.arange(257 * 32) * 37 + 11) % 256).astype(np.uint8)).reshape(-1, 1)
    st = QuantState.from_dict(st.as_dict(packed=True), torch.device("cpu"))
    v = dequantize_4bit(q, st).reshape(-1)
    put("long.nf4.nested", q, st, v[16320:])
    del t["long.nf4.nested.weight"]
    t["long.nf4.nested.sha256"] = torch.frombuffer(bytearray(hashlib.sha256(v.numpy().tobytes()).digest()), dtype=torch.uint8)
    t.update({f"{k}.input": torch.from_numpy(v) for k, v in mats.items()})
    save(t, out / "bitsandbytes.safetensors", versions("bitsandbytes", "torch"))
    demo_nf4(out)


def demo_nf4(out):
    """For every matrix of the demo model that is quantized, a checksum (FNV-1a of 64 bits) of what the package makes of it:
    codes, absmax, nested_absmax and, as f32, nested_offset."""
    from bitsandbytes.functional import quantize_4bit
    from safetensors.torch import load_file
    weights = load_file(Path(__file__).resolve().parents[3] / "assets/omni-demo/model.safetensors")
    lines = []
    for name, w in sorted(weights.items()):
        if not re.fullmatch(r"thinker\.model\.layers\.\d+\.(self_attn\..|mlp\.experts\.\d+\.(gate|up|down))_proj\.weight", name):
            continue
        q, st = quantize_4bit(w, quant_type="nf4", compress_statistics=True)
        parts = (q, st.absmax, st.state2.absmax, st.offset)
        checksum = 0xCBF29CE484222325
        for byte in b"".join(part.numpy().tobytes() for part in parts):
            checksum = ((checksum ^ byte) * 0x100000001B3) % 2**64
        lines.append(f"{name.removesuffix('.weight')} {checksum:016x}\n")
    (out / "demo_nf4.txt").write_text("".join(lines))


# ------------------------------------------------------------------------------------------------------------------ int4
def words(codes, dim, order=range(8)):
    """Packs 4-bit codes (int64, 0..15) along `dim`, element 8c+j into nibble order[j] of word c."""
    import torch
    c = codes.movedim(dim, -1)
    c = c.reshape(*c.shape[:-1], -1, 8)
    w = sum(c[..., j] << (4 * o) for j, o in enumerate(order))
    return (w - ((w >> 31) << 32)).to(torch.int32).movedim(-1, dim).contiguous()


def int4(out):
    import torch
    from auto_round.export.export_to_awq.utils import WQLinear_GEMM, dequantize_gemm
    from auto_round_extension.torch.qlinear_torch import QuantLinear as PlainZero
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear as ZeroMinusOne
    n, k, g = 32, 32, 16
    w = torch.from_numpy(small(12, n, k))
    lo, hi = w.unflatten(1, (-1, g)).amin(-1), w.unflatten(1, (-1, g)).amax(-1)
    # [N, K/g]; seven significant bits, so that 4-bit integer times scale is exact in f16, in which `value` is stored.
    m, e = torch.frexp((hi - lo) / 15)
    s = torch.ldexp(torch.round(m * 128) / 128, e)
    z = torch.round(-lo / s).clamp(1, 15)
    lin = torch.nn.Linear(k, n, bias=False)
    # Weights on the grid, so that every packer picks the same code.
    q = torch.round(w / s.repeat_interleave(g, 1) + z.repeat_interleave(g, 1)).clamp(0, 15)
    lin.weight.data = (q - z.repeat_interleave(g, 1)) * s.repeat_interleave(g, 1)
    value = lin.weight.data.clone()
    t = {"value": value.half(), "scales": s.t().contiguous().half()}
    assert torch.equal(t["value"].float(), value) and torch.equal(t["scales"].float(), s.t())
    awq = WQLinear_GEMM.from_linear(lin, 4, g, scales=s.t().contiguous(), zeros=z.t().contiguous(), device="cpu")
    t["awq.qweight"], t["awq.qzeros"] = awq.qweight, awq.qzeros
    assert torch.equal(awq.scales, t["scales"])
    assert torch.equal(dequantize_gemm(awq.qweight, awq.qzeros, awq.scales.float(), 4, g).t(), value)
    eye = torch.eye(k)
    for name, cls in (("gptq", ZeroMinusOne), ("gptq_v2", PlainZero)):
        m = cls(4, g, k, n, False, g_idx=True)
        m.device = "cpu"
        m.pack(lin, s.clone(), z.clone(), None, "cpu")
        assert torch.equal(m.scales, t["scales"])
        m.scales = m.scales.float()
        assert torch.equal(m(eye).t(), value)
        t[f"{name}.qzeros"] = m.qzeros
        assert "gptq.qweight" not in t or torch.equal(t["gptq.qweight"], m.qweight)
        t["gptq.qweight"], t["gptq.g_idx"] = m.qweight, m.g_idx
    # The formulas of this script give the same words.
    qi, zi = q.to(torch.int64), z.to(torch.int64)
    assert torch.equal(words(qi.t(), 0), t["gptq.qweight"])
    assert torch.equal(words(zi.t(), 1), t["gptq_v2.qzeros"]) and torch.equal(words(zi.t() - 1, 1), t["gptq.qzeros"])
    assert torch.equal(words(qi.t(), 1, (0, 4, 1, 5, 2, 6, 3, 7)), t["awq.qweight"])
    # desc_act: the groups belong to scattered input channels. By formula; read back by auto-round.
    n = 8
    g_idx = torch.from_numpy(np.random.Generator(np.random.PCG64(13)).permutation(np.arange(k) // g).astype(np.int32))
    qd, zd, sd = qi[:n], zi[:n], t["scales"][:, :n].contiguous()
    t["desc.qweight"], t["desc.qzeros"], t["desc.scales"], t["desc.g_idx"] = words(qd.t(), 0), words(zd.t(), 1), sd, g_idx
    m = PlainZero(4, g, k, 32, False, g_idx=True)
    m.outfeatures = n
    m.qweight, m.qzeros, m.scales, m.g_idx = t["desc.qweight"], t["desc.qzeros"], sd.float(), g_idx
    t["desc.value"] = m(eye).t().contiguous().half()
    assert torch.equal(t["desc.value"].float(), ((qd.t() - zd.t()[g_idx.long()]).float() * sd.float()[g_idx.long()]).t())
    save(t, out / "int4.safetensors", versions("auto-round", "torch"))


def main():
    part, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    if part != "tables":
        import torch
        torch.set_num_threads(1)
    dict(tables=tables, modelopt=modelopt, compressed=compressed, bnb=bnb, int4=int4)[part](out)


if __name__ == "__main__":
    main()
