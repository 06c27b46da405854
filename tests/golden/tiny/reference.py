"""Runs a case through transformers (f32, eager, greedy) and keeps what every stage gives."""
import numpy as np
import torch
from transformers import AutoProcessor, BatchFeature, Qwen3OmniMoeForConditionalGeneration

import inputs

NEW_TOKENS, FRAMES, PENALTY, MARGIN = 12, 12, 1.05, 1e-3


def per_clip(extract):
    """Every clip alone through the feature extractor: a batch would let a clip's padding reach its last frames."""
    def call(clips, **kw):
        one = [extract([c], **dict(kw, return_tensors="pt")) for c in clips]
        longest = max(o["input_features"].shape[-1] for o in one)

        def joined(key):
            rows = [o[key][0] for o in one]
            return torch.stack([torch.nn.functional.pad(r, (0, longest - r.shape[-1])) for r in rows])
        return BatchFeature(dict(input_features=joined("input_features"), attention_mask=joined("attention_mask")))
    return call


class Close(Exception):
    """A routing decision nearer than MARGIN, where the search gives up."""


class Taps:
    """Forward hooks. A stage keeps its first call (the prefill); margins look at every call."""

    def __init__(self, m):
        self.m, self.kept, self.gaps, self.tower, self.strict = m, {}, [], iter(()), False
        th, tk = m.thinker, m.talker
        self.stack("audio", th.audio_tower.layers, "stem")
        th.audio_tower.register_forward_hook(lambda _m, _a, o: self.keep("audio/rows", o.last_hidden_state))
        th.visual.register_forward_pre_hook(lambda _m, _a: setattr(self, "stage", next(self.tower)))
        self.stack("vision", th.visual.blocks, "embed")
        for j, x in enumerate(th.visual.merger_list):
            x.register_forward_hook(lambda _m, _a, o, j=j: self.keep(f"vision/deepstack.{j}", o))
        th.visual.merger.register_forward_hook(lambda _m, _a, o: self.keep("vision/merged", o))
        for name, model, head in (("thinker", th.model, th.lm_head), ("talker", tk.model, tk.codec_head)):
            self.stream(name, model, head)
        tk.register_forward_pre_hook(self.talker_input, with_kwargs=True)
        for i, x in enumerate(tk.code_predictor.lm_head):
            x.register_forward_hook(lambda _m, _a, o, i=i: self.keep(f"predictor/logits.{i}", o[0, -1]))
        tk.code_predictor.model.register_forward_pre_hook(lambda _m, _a, k: self.keep("predictor/input", k["inputs_embeds"]), with_kwargs=True)

    def keep(self, key, value):
        if key.startswith("vision/"):
            key = self.stage + key[len("vision"):]
        value = value[0] if isinstance(value, tuple) else value
        self.kept.setdefault(key, value.detach().clone().squeeze(0) if value.dim() == 3 else value.detach().clone())

    def stack(self, stage, layers, first):
        """An encoder: what enters its first layer, then every layer's output."""
        layers[0].register_forward_pre_hook(lambda _m, a: self.keep(f"{stage}/{first}", a[0]))
        for i, x in enumerate(layers):
            x.register_forward_hook(lambda _m, _a, o, i=i: self.keep(f"{stage}/layer.{i}", o))

    def stream(self, stage, model, head):
        """A decoder: the residual stream after layer i is what enters the next one (deepstack rows are in it)."""
        model.layers[0].register_forward_pre_hook(lambda _m, a: self.keep(f"{stage}/embeds", a[0]))
        for i, x in enumerate([*model.layers[1:], model.norm]):
            x.register_forward_pre_hook(lambda _m, a, i=i: self.keep(f"{stage}/layer.{i}", a[0]))
        for i, x in enumerate(model.layers):
            x.mlp.gate.register_forward_hook(lambda _m, _a, o, i=i: self.route(f"{stage}/router.{i}", *o))
        model.norm.register_forward_hook(lambda _m, _a, o: self.keep(f"{stage}/norm", o))
        head.register_forward_hook(lambda _m, _a, o: self.keep(f"{stage}/logits", o[0, -1]))
        model.register_forward_pre_hook(lambda _m, _a, k: self.keep(f"{stage}/positions", k["position_ids"][-3:, 0]), with_kwargs=True)

    def route(self, key, logits, weights, ids):
        top = logits.sort(dim=-1, descending=True).values
        self.gaps.append((top[:, ids.shape[1] - 1] - top[:, ids.shape[1]]).min().item())
        if self.strict and self.gaps[-1] <= MARGIN:
            raise Close
        order = ids.argsort(dim=-1)
        self.keep(key, ids.gather(1, order))
        self.keep(key.replace("router", "weights"), weights.gather(1, order))

    def talker_input(self, _m, _a, k):
        if k["inputs_embeds"].shape[1] > 1:
            self.keep("talker/trailing", k["trailing_text_hidden"])
        else:
            self.keep("talker/x0", k["inputs_embeds"])


class Reference:
    def __init__(self, path):
        torch.set_num_threads(1)
        self.m, report = Qwen3OmniMoeForConditionalGeneration.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        assert not any(report.values()), report
        self.m.eval().set_experts_implementation("eager")
        # The release's talker_config has no audio_config, yet its positions ask for the n_window of one when the prompt
        # holds an image or a video and a clip: without this line transformers 5.17.0 raises there.
        self.m.talker.config.audio_config = self.m.thinker.config.audio_config
        self.p = AutoProcessor.from_pretrained(path)
        self.p.feature_extractor = per_clip(self.p.feature_extractor)
        self.first_special = min(self.p.tokenizer.added_tokens_decoder)
        self.taps, self.choices = Taps(self.m), {}
        for name, model in (("thinker", self.m.thinker), ("talker", self.m.talker), ("predictor", self.m.talker.code_predictor)):
            model.generate = self.watch(name, model.generate)
        decode = self.m.code2wav.chunked_decode

        def chunked(codes, *a, **k):
            self.codes = codes[0].T.clone()
            return decode(codes, *a, **k)
        self.m.code2wav.chunked_decode = chunked

    def watch(self, name, generate):
        """The smallest distance between the best and the second best score of a greedy choice."""
        def call(*a, **k):
            r = generate(*a, **dict(k, output_scores=True, return_dict_in_generate=True))
            best = torch.stack(r.scores).topk(2, dim=-1).values
            self.choices.setdefault(name, []).append((best[..., 0] - best[..., 1]).min().item())
            return r
        return call

    def inputs(self, c):
        media = {k: [inputs.draw(p) for m in c["messages"] if not isinstance(m["content"], str) for p in m["content"] if p["type"] == k]
                 for k in ("audio", "image", "video")}
        if c["track"]:
            media["audio"].append(inputs.draw(c["track"]))
        clips = [a.astype(np.float32) / 32768 for a in media["audio"]]
        text = self.p.apply_chat_template(c["messages"], add_generation_prompt=True, tokenize=False)
        return self.p(text=text, audio=clips or None, images=media["image"] or None, videos=media["video"] or None, return_tensors="pt",
                      use_audio_in_video=bool(c["track"]), do_sample_frames=False, **({"fps": c["fps"]} if c["fps"] else {}))

    @torch.no_grad()
    def run(self, c):
        """Facts for golden.json, tensors by stage, and the smallest margins of the case."""
        i, eos = self.inputs(c), self.m.config.im_end_token_id
        t = self.taps
        t.kept, t.gaps, self.choices, self.codes = {}, [], {}, None
        t.tower = iter([s for s, k in (("image", "pixel_values"), ("video", "pixel_values_videos")) if k in i])
        talk = dict(speaker=c["speak"], talker_do_sample=False, talker_max_new_tokens=FRAMES + 1, talker_repetition_penalty=PENALTY)
        r = self.m.generate(**i, use_audio_in_video=bool(c["track"]), return_audio=bool(c["speak"]), thinker_max_new_tokens=NEW_TOKENS,
                            thinker_eos_token_id=eos, thinker_do_sample=False, **(talk if c["speak"] else {}))
        seq, wav = r if c["speak"] else (r.sequences, None)
        n = i["input_ids"].shape[1]
        facts = dict(prompt_ids=i["input_ids"][0].tolist(), output_ids=seq[0, n:].tolist(), rope_delta=float(self.m.thinker.rope_deltas))
        facts["finish"] = "stop" if facts["output_ids"][-1] == eos else "length"
        kept = dict(t.kept)
        if wav is not None:
            kept.update({"talker/codes": self.codes, "talker/wav": wav.reshape(-1)})
            facts.update(talker_rope_delta=float(self.m.talker.rope_deltas), frames=len(self.codes))
            facts["talker_finish"] = "stop" if facts["frames"] < FRAMES else "length"
        margins = dict(router=min(t.gaps), **{k: min(v) for k, v in self.choices.items()})
        return facts, kept, i, margins
