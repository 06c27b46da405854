"""Times transformers (f32 on the CPU, greedy) on the demo model: the figures that the engine's benches are held against.

Prints JSON lines {"what", "value", "unit"}, medians of `--repeat` runs after one warm-up. Prompts are in memory (decoded clip,
opened image); the processor, the prefill and the first token make up `first_token.*`. Loading is told apart (`load`).
Needs idle cores: with two threads and a third busy program torch's threads wait for one another, and figures grow tenfold.
"""
import argparse
import json
import statistics
import time
from pathlib import Path

import soundfile
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen3OmniMoeForConditionalGeneration

ROOT = Path(__file__).resolve().parents[1]
COUNT = [dict(role="user", content="Count from 2 to 6.")]
NEW_TOKENS, FRAMES = 200, 43


def tell(what, value, unit):
    print(json.dumps(dict(what=what, value=round(value, 5), unit=unit)), flush=True)


def median(run, repeat):
    run()
    return statistics.median(run() for _ in range(repeat))


def seconds(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


class Reference:
    def __init__(self, path):
        self.m = Qwen3OmniMoeForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
        self.p = AutoProcessor.from_pretrained(path)

    def read(self, messages, media):
        """The media of a conversation, decoded."""
        out = dict(audio=[], image=[])
        for part in (p for m in messages if not isinstance(m["content"], str) for p in m["content"]):
            if part["type"] == "audio":
                out["audio"].append(soundfile.read(media / part["audio"], dtype="float32")[0])
            elif part["type"] == "image":
                out["image"].append(Image.open(media / part["image"]).convert("RGB"))
        return out

    def reply(self, messages, media, tokens, speak=None):
        text = self.p.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        i = self.p(text=text, audio=media["audio"] or None, images=media["image"] or None, return_tensors="pt")
        talk = dict(speaker=speak, talker_do_sample=False) if speak else {}
        return self.m.generate(**i, return_audio=bool(speak), thinker_max_new_tokens=tokens, thinker_do_sample=False,
                               thinker_eos_token_id=self.m.config.im_end_token_id, **talk)


def first_token(ref, cases, repeat):
    for what, messages in (("text", COUNT), ("audio", cases["audio-000"]["messages"]), ("image", cases["image-000"]["messages"])):
        media = ref.read(messages, ROOT / "tests/eval")
        tell(f"first_token.{what}", median(lambda: seconds(lambda: ref.reply(messages, media, 1))[0] * 1e3, repeat), "ms")


def decode(ref, repeat):
    """Tokens after the first of a reply that is not allowed to end."""
    ids = ref.p.tokenizer(ref.p.apply_chat_template(COUNT, add_generation_prompt=True, tokenize=False), return_tensors="pt")

    def run(tokens):
        k = dict(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=ref.m.config.im_end_token_id)
        return seconds(lambda: ref.m.thinker.generate(**ids, **k))[0]
    tell("thinker.decode", median(lambda: (run(NEW_TOKENS) - run(1)) / (NEW_TOKENS - 1) * 1e3, repeat), "ms/token")


def speech(ref, repeat):
    """A spoken reply as a whole, and the talker with its code predictor alone."""
    spent, frames, none = [], [], dict(audio=[], image=[])
    talk, wave = ref.m.talker.generate, ref.m.code2wav.chunked_decode

    def talker(*a, **k):
        t, r = seconds(lambda: talk(*a, **k))
        spent.append(t)
        return r

    def code2wav(codes, *a, **k):
        frames.append(codes.shape[-1])
        return wave(codes, *a, **k)
    ref.m.talker.generate, ref.m.code2wav.chunked_decode = talker, code2wav
    tell("spoken_reply", median(lambda: seconds(lambda: ref.reply(COUNT, none, 32, "ethan"))[0], repeat), "s")
    ref.m.talker.generate, ref.m.code2wav.chunked_decode = talk, wave
    tell("spoken_reply.frames", frames[-1], "frames")
    tell("talker.frame", statistics.median(t / n for t, n in zip(spent[1:], frames[1:])) * 1e3, "ms/frame")


def code2wav(ref, repeat):
    c = ref.m.config.code2wav_config
    codes = torch.arange(c.num_quantizers * FRAMES).reshape(1, c.num_quantizers, FRAMES) * 7919 % c.codebook_size
    tell(f"code2wav.{FRAMES}", median(lambda: seconds(lambda: ref.m.code2wav.chunked_decode(codes))[0], repeat), "s")


@torch.no_grad()
def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", type=Path, default=ROOT / "assets/omni-demo")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--repeat", type=int, default=5)
    a = a.parse_args()
    torch.set_num_threads(a.threads)
    load, ref = seconds(lambda: Reference(a.model))
    tell("load", load, "s")
    cases = {c["id"]: c for c in map(json.loads, (ROOT / "tests/eval/cases.jsonl").read_text().splitlines())}
    first_token(ref, cases, a.repeat)
    decode(ref, a.repeat)
    speech(ref, a.repeat)
    code2wav(ref, a.repeat)


if __name__ == "__main__":
    main()
