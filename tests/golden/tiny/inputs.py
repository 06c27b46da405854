"""Media drawn with integers only, and the cases (conversations) that use them.

A part of a message that is not text names its media, e.g. {"type": "audio", "samples": 1600, "seed": 5}:
  audio  samples of 16 kHz mono i16; the model gets i16 / 32768.
  image  height, width: RGB u8 [height, width, 3].
  video  frames, height, width: RGB u8 [frames, height, width, 3].

`mix(seed, n)` is a hash of two u32, all products and sums modulo 2^32:
  x = n * 0x9E3779B1 + seed * 0x85EBCA77;  x ^= x >> 15;  x *= 0x2C1B3C6D;  x ^= x >> 12;  x *= 0x297A2D39;  x ^= x >> 15.
"""
import numpy as np

U32 = np.uint32


def mix(seed, n):
    with np.errstate(over="ignore"):
        x = np.asarray(n, U32) * U32(0x9E3779B1) + U32(seed * 0x85EBCA77 % 2**32)
        x = (x ^ (x >> U32(15))) * U32(0x2C1B3C6D)
        x = (x ^ (x >> U32(12))) * U32(0x297A2D39)
        return x ^ (x >> U32(15))


def audio(samples, seed):
    """A triangle wave whose pitch and loudness change every 1600 samples, plus noise; `>>` rounds down."""
    n = np.arange(samples)
    block = n // 1600
    step = 200 + (mix(seed + 1000, block) % U32(6000)).astype(np.int64)
    loud = (mix(seed + 2000, block) % U32(192)).astype(np.int64)
    wave = np.abs((n * step & 0xFFFF) - 32768) * 2 - 32768
    noise = (mix(seed, n) & U32(0xFFFF)).astype(np.int64) - 32768
    return np.minimum((wave * loud + noise * 16) >> 8, 32767).astype(np.int16)


def video(frames, height, width, seed):
    """A saw-tooth ramp that wraps, inverted on a 13 x 9 chequer board that moves 7 columns a frame, plus noise of 0..15."""
    f, y, x, c = np.ogrid[:frames, :height, :width, :3]
    moved = x + 7 * f
    base = (3 * moved + 5 * y + 70 * c + 11 * seed) & 255
    base = np.where((moved // 13 + y // 9) & 1, 255 - base, base)
    noise = (mix(seed, ((f * height + y) * width + x) * 3 + c) & U32(15)).astype(np.int64)
    return np.minimum(base + noise, 255).astype(np.uint8)


def image(height, width, seed):
    return video(1, height, width, seed)[0]


def draw(part):
    make = dict(audio=audio, image=image, video=video)[part["type"]]
    return make(**{k: v for k, v in part.items() if k != "type"})


# The salt of a case (0 when it is not listed) moves its media seeds and stands for {n} in its texts. search.py finds salts for
# which no routing decision and no greedy choice of the case is close.
SALTS = {
    "text-stop": 113, "audio-short": 19, "audio": 1, "audio-long": 17, "audio-two": 38, "image-two": 6, "video": 14,
    "video-odd": 4, "video-audio": 50, "video-image": 3, "image-audio": 11, "turns": 11,
}


def clip(samples):
    return dict(type="audio", samples=samples)


def picture(height, width):
    return dict(type="image", height=height, width=width)


def film(frames, height, width):
    return dict(type="video", frames=frames, height=height, width=width)


def text(words):
    return dict(type="text", text=words)


def user(*parts):
    return dict(role="user", content=list(parts))


# speak: the voice; fps: the processor's argument (1 when it is not given, so a grid step of 2 / 1 seconds); track: samples of
# the video's own sound; stops: the salt was chosen so that both thinker and talker end by themselves, all others by length.
CASES = {
    "text": dict(messages=[user(text("What is {n} plus four, and what comes after it?"))], speak="ethan"),
    "text-stop": dict(messages=[user(text("Say {n}."))], speak="aiden", stops=True),
    "audio-short": dict(messages=[user(clip(1600), text("Transcribe the audio."))]),
    "audio": dict(messages=[user(clip(112037), text("What is said?"))], speak="chelsie"),
    "audio-long": dict(messages=[user(clip(496000))]),
    "audio-two": dict(messages=[user(clip(8000), text("and"), clip(144000), text("Same?"))]),
    "image-two": dict(messages=[user(picture(97, 131), picture(230, 75), text("What do you see?"))], speak="aiden"),
    "video": dict(messages=[user(film(4, 80, 112), text("What moves?"))]),
    "video-odd": dict(messages=[user(text("Look."), film(3, 352, 400), text("And?"))], fps=1.5, speak="ethan"),
    "video-audio": dict(messages=[user(film(4, 90, 64), text("Hear?"))], fps=2.0, track=48000, speak="ethan"),
    "video-image": dict(messages=[user(film(2, 96, 96), picture(64, 64), text("Both?"))]),
    "image-audio": dict(messages=[user(picture(64, 96), clip(16000), text("What shape is it?"))], speak="ethan"),
    "turns": dict(messages=[
        dict(role="system", content="You are a tiny omni model."), user(picture(70, 70), clip(4800), text("What is this?")),
        dict(role="assistant", content="a red square."), user(clip(8000), text("And {n}?"))], speak="chelsie"),
}


def case(name, salt=None):
    """The case with seeds and texts filled in."""
    salt = SALTS.get(name, 0) if salt is None else salt
    c, seed = CASES[name], 100 + salt * 5000
    messages = []
    for m in c["messages"]:
        parts = m["content"]
        if not isinstance(parts, str):
            parts = [dict(p) for p in parts]
            for p in parts:
                if p["type"] == "text":
                    p["text"] = p["text"].format(n=salt)
                else:
                    p["seed"], seed = seed, seed + 1
        messages.append(dict(m, content=parts))
    track = dict(type="audio", samples=c["track"], seed=seed) if "track" in c else None
    return dict(name=name, messages=messages, fps=c.get("fps"), track=track, speak=c.get("speak"), stops=c.get("stops", False))
