"""The code-to-wave stage alone, on codes drawn with integers: code[frame][group] = mix(77, 16 * frame + group) % codebook."""
import numpy as np
import torch

import inputs

FRAMES, SEED = [1, 2, 30, 130, 330], 77


def codes(frames, codebook):
    n = np.arange(16 * frames, dtype=np.uint32)
    return (inputs.mix(SEED, n) % np.uint32(codebook)).astype(np.int64).reshape(frames, 16)


def spread(n, k):
    """At most k indices of 0..n, evenly spaced, the first and the last among them."""
    return sorted({i * (n - 1) // max(k - 1, 1) for i in range(k)})


def wave_at(n, edges=()):
    """Sample indices kept of a wave of n samples: 64 at both ends, 32 on both sides of the edges, 256 between."""
    near = [i for e in edges for i in range(e - 32, e + 32)]
    return sorted({*range(min(64, n)), *range(max(0, n - 64), n), *near, *spread(n, 256)})


class Stages:
    """Hooks that keep the last forward's stage outputs as [time, channels]."""

    def __init__(self, c2w):
        self.kept, self.handles = {}, []
        self.hook("pre", c2w.pre_transformer, lambda o: o.last_hidden_state[0])
        for i, pair in enumerate(c2w.upsample):
            self.hook(f"upsample.{i}", pair[-1], lambda o: o[0].T)
        for i, block in enumerate(c2w.decoder[:-1]):
            self.hook(f"decoder.{i}", block, lambda o: o[0].T)

    def hook(self, key, module, view):
        self.handles.append(module.register_forward_hook(lambda _m, _a, o: self.kept.__setitem__(key, view(o).clone())))

    def remove(self):
        for h in self.handles:
            h.remove()


@torch.no_grad()
def golden(c2w):
    """Facts and tensors for every length; `chunked` is transformers' chunked_decode(300, 25), which differs from 301 frames on."""
    facts, out, stages = {}, {}, Stages(c2w)
    decode = type(c2w).chunked_decode
    for n in FRAMES:
        c, name = codes(n, c2w.config.codebook_size), f"code2wav-{n}"
        x = torch.tensor(c).T[None]
        wave = c2w(x).reshape(-1)
        f = facts[name] = dict(frames=n, samples=len(wave), mean_abs=wave.abs().mean().item(), clamped=int((wave.abs() >= 1).sum()), rows={})
        for stage, y in stages.kept.items():
            f["rows"][stage] = at = spread(len(y), 5)
            out[f"{name}/{stage}"] = y[at]
        keep(out, f"{name}/wav", wave)
        if n > 300:
            whole = decode(c2w, x, 300, 25).reshape(-1)
            f["chunked_samples"] = len(whole)
            keep(out, f"{name}/chunked", whole, [300 * 1920 - 555])
    stages.remove()
    return facts, out


def keep(out, name, wave, edges=()):
    """All samples of a short wave, else some of them and, as `name.at`, their indices."""
    if len(wave) <= 4096:
        out[name] = wave
    else:
        at = wave_at(len(wave), edges)
        out[name], out[f"{name}.at"] = wave[at], torch.tensor(at, dtype=torch.int32)
