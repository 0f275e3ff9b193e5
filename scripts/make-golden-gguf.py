#!/usr/bin/env python3
"""GGUF files of the tiny checkpoints of test/golden/arch, laid out as llama.cpp's convert_hf_to_gguf.py lays them out.

    python3 -m venv ~/.cache/gqa-check && ~/.cache/gqa-check/bin/pip install gguf==0.19.0 numpy
    ~/.cache/gqa-check/bin/python scripts/make-golden-gguf.py [NAME...]

Writes test/golden/gguf/NAME.gguf. Names of tensors and keys come from the gguf package; what the converter does to
tensors (rows of Q and K, fused projections, experts, norms) is done here. Some keys say what these checkpoints need and
the converter, made for the published models, takes as given: attention.scale and attention.sliding_window_pattern of
Gemma, rope.freq_base of GPT-NeoX, key_length of ChatGLM, attention.sliding_window of Mixtral.

llama.cpp (node-llama-cpp 3.22.1) given these files in float32, with a vocabulary, computes the goldens' last logits within
0.02 for llama3.2, qwen2, qwen3, falcon, gpt_bigcode, gpt_neox and glm4; and ours where it knows no key for what the golden has:
mixtral without its window, gemma2 and gemma3 with the usual scale. It rounds YaRN's ramp, which gpt-oss does not (0.14).
"""
import json
import math
import pathlib
import re
import struct
import sys

import gguf
import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "test" / "golden"
ARCHS = gguf.MODEL_ARCH

# Golden to GGUF's architecture.
MODELS = {
    "llama3.2": ARCHS.LLAMA, "mixtral": ARCHS.LLAMA, "qwen2": ARCHS.QWEN2, "qwen3": ARCHS.QWEN3,
    "gemma2": ARCHS.GEMMA2, "gemma3": ARCHS.GEMMA3, "phi3-longrope": ARCHS.PHI3, "falcon-7b": ARCHS.FALCON,
    "falcon-40b": ARCHS.FALCON, "gpt_bigcode": ARCHS.STARCODER, "gpt_neox": ARCHS.GPTNEOX, "chatglm2": ARCHS.CHATGLM,
    "glm4": ARCHS.GLM4, "gpt_oss": ARCHS.GPT_OSS,
}


def read_safetensors(folder):
    """Every tensor in float32, and the dtype it is stored in."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        blob = path.read_bytes()
        size = struct.unpack("<Q", blob[:8])[0]
        header = json.loads(blob[8:8 + size])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (8 + size + at for at in entry["data_offsets"])
            tensors[name] = (values(blob[begin:end], entry["dtype"]).reshape(entry["shape"]), entry["dtype"])
    return tensors


def values(data, dtype):
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)


class Model:
    def __init__(self, name):
        self.name = name
        self.arch = MODELS[name]
        self.config = json.loads((GOLDEN / "arch" / name / "config.json").read_text())
        self.tensors = read_safetensors(GOLDEN / "arch" / name)
        first = lambda *keys, default=None: next((self.config[k] for k in keys if k in self.config), default)
        self.first = first
        self.layers = first("num_hidden_layers", "n_layer", "num_layers")
        self.hidden = first("hidden_size", "n_embd")
        self.heads = first("num_attention_heads", "n_head")
        self.kv_heads = first("num_key_value_heads", "num_kv_heads", "multi_query_group_num",
                              default=1 if self.config.get("multi_query") else self.heads)
        self.head_dim = first("head_dim", "kv_channels", default=self.hidden // self.heads)
        scaling = self.config.get("rope_scaling") or {}
        self.rope_type = scaling.get("rope_type", scaling.get("type"))
        self.scaling = scaling
        self.rotary = int(self.head_dim * first("partial_rotary_factor", "rotary_pct",
                                                default=0.5 if self.arch == ARCHS.CHATGLM else 1))

    # Tensors

    def converted(self):
        """(name with .weight or .bias, values, dtype), names being those that gguf's table knows."""
        experts = {}
        for name, (data, dtype) in self.tensors.items():
            if "inv_freq" in name:
                continue
            expert = re.match(r"model\.layers\.(\d+)\.block_sparse_moe\.experts\.(\d+)\.(w\d)\.weight", name)
            if expert:
                layer, index, part = expert.groups()
                experts.setdefault(f"layers.{layer}.feed_forward.experts.{part}.weight", {})[int(index)] = (data, dtype)
            else:
                yield from self.modify(name, data, dtype)
        for name, stack in experts.items():
            yield name, np.stack([stack[i][0] for i in sorted(stack)]), stack[0][1]

    def modify(self, name, data, dtype):
        if self.arch == ARCHS.LLAMA and re.search(r"\.[qk]_proj\.", name):
            heads = self.heads if ".q_proj." in name else self.kv_heads
            data = data.reshape(heads, 2, data.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(data.shape)
        elif self.arch in (ARCHS.GEMMA2, ARCHS.GEMMA3) and name.endswith("norm.weight"):
            data = data + np.float32(1)
        elif self.arch == ARCHS.FALCON and "query_key_value" in name:
            group = self.heads // self.kv_heads
            qkv = data.reshape(self.kv_heads, group + 2, self.head_dim, -1)
            data = np.concatenate([part.reshape(-1, data.shape[-1]) for part in
                                   (qkv[:, :-2], qkv[:, -2:-1], qkv[:, -1:])])
        elif self.arch == ARCHS.GPTNEOX and "query_key_value" in name:
            qkv = data.reshape(self.heads, 3, self.head_dim, -1)
            data = np.concatenate([qkv[:, i].reshape(-1, qkv.shape[-1]) for i in range(3)]).reshape(data.shape)
        elif self.arch == ARCHS.CHATGLM:
            name = name.removeprefix("transformer.")
        elif self.arch == ARCHS.GPT_OSS:
            yield from self.modify_gpt_oss(name, data, dtype)
            return
        yield name, data, dtype

    def modify_gpt_oss(self, name, data, dtype):
        if name.endswith("sinks"):
            yield f"{name}.weight", data, dtype
        elif ".experts." in name:
            bias = name.endswith("_bias")
            kind = ".bias" if bias else ".weight"
            data = data if bias else data.swapaxes(-1, -2)
            name = name.removesuffix("_bias")
            if "gate_up_proj" in name:
                yield name.replace("gate_up_proj", "gate_proj") + kind, data[:, ::2], dtype
                yield name.replace("gate_up_proj", "up_proj") + kind, data[:, 1::2], dtype
            else:
                yield name + kind, data, dtype
        else:
            yield name, data, dtype

    def extra(self):
        """Tensors of RoPE, in float32."""
        if self.rope_type == "llama3":
            s = self.scaling
            waves = 2 * math.pi * self.config["rope_theta"] ** (np.arange(0, self.head_dim, 2) / self.head_dim)
            low, high = (s["original_max_position_embeddings"] / s[k] for k in ("low_freq_factor", "high_freq_factor"))
            smooth = (s["original_max_position_embeddings"] / waves - s["low_freq_factor"]) \
                / (s["high_freq_factor"] - s["low_freq_factor"])
            middle = 1 / ((1 - smooth) / s["factor"] + smooth)
            yield "rope_freqs.weight", np.where(waves < high, 1, np.where(waves > low, s["factor"], middle))
        if self.rope_type == "longrope":
            yield "rope_factors_long.weight", np.array(self.scaling["long_factor"])
            yield "rope_factors_short.weight", np.array(self.scaling["short_factor"])

    # Metadata

    def add_metadata(self, w):
        config, first = self.config, self.first
        w.add_vocab_size(first("vocab_size", "padded_vocab_size"))
        w.add_context_length(first("max_position_embeddings", "n_positions", "seq_length", default=2048))
        w.add_embedding_length(self.hidden)
        w.add_feed_forward_length(first("intermediate_size", "n_inner", "ffn_hidden_size", default=4 * self.hidden))
        w.add_block_count(self.layers)
        w.add_head_count(self.heads)
        w.add_head_count_kv(self.kv_heads)
        if "head_dim" in config or "kv_channels" in config:
            w.add_key_length(self.head_dim)
            w.add_value_length(self.head_dim)
        rms = first("rms_norm_eps") if self.arch != ARCHS.CHATGLM else first("layernorm_epsilon", "rms_norm_eps")
        if rms is not None:
            w.add_layer_norm_rms_eps(rms)
        else:
            w.add_layer_norm_eps(first("layer_norm_epsilon", "layer_norm_eps"))
        theta = first("rope_theta", "rotary_emb_base")
        if theta is not None:
            w.add_rope_freq_base(theta)
        if self.arch in (ARCHS.LLAMA, ARCHS.PHI3, ARCHS.GPTNEOX, ARCHS.CHATGLM, ARCHS.GLM4):
            w.add_rope_dimension_count(self.rotary)
        if self.arch == ARCHS.GPTNEOX:
            w.add_parallel_residual(config["use_parallel_residual"])
        if self.arch == ARCHS.FALCON:
            w.add_tensor_data_layout("jploski")
        self.add_attention(w)
        self.add_rope_scaling(w)
        if "num_local_experts" in config:
            w.add_expert_count(config["num_local_experts"])
            w.add_expert_used_count(config["num_experts_per_tok"])
        if self.arch == ARCHS.GPT_OSS:
            w.add_expert_feed_forward_length(config["intermediate_size"])
        for key, add in (("bos_token_id", w.add_bos_token_id), ("eos_token_id", w.add_eos_token_id),
                         ("pad_token_id", w.add_pad_token_id)):
            token = config.get(key)
            if token is not None:
                add(token[0] if isinstance(token, list) else token)
        if isinstance(config.get("eos_token_id"), list):
            w.add_eot_token_id(config["eos_token_id"][1])

    def add_attention(self, w):
        config = self.config
        windowed = self.arch in (ARCHS.LLAMA, ARCHS.GEMMA2, ARCHS.GEMMA3, ARCHS.PHI3, ARCHS.GPT_OSS)
        if windowed and config.get("sliding_window") is not None:
            w.add_sliding_window(config["sliding_window"])
        if config.get("attn_logit_softcapping"):
            w.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        if config.get("final_logit_softcapping"):
            w.add_final_logit_softcapping(config["final_logit_softcapping"])
        if config.get("query_pre_attn_scalar", self.head_dim) != self.head_dim:
            w.add_attention_scale(config["query_pre_attn_scalar"] ** -0.5)
        if self.arch == ARCHS.GEMMA3:
            w.add_rope_freq_base_swa(config["rope_local_base_freq"])
            w.add_sliding_window_pattern(config["sliding_window_pattern"])

    def add_rope_scaling(self, w):
        s = self.scaling
        if self.rope_type in ("linear", "yarn"):
            w.add_rope_scaling_type(gguf.RopeScalingType(self.rope_type))
            w.add_rope_scaling_factor(s["factor"])
        if self.rope_type == "yarn":
            w.add_rope_scaling_orig_ctx_len(s["original_max_position_embeddings"])
            w.add_rope_scaling_yarn_beta_fast(s["beta_fast"])
            w.add_rope_scaling_yarn_beta_slow(s["beta_slow"])
        if self.arch == ARCHS.PHI3:
            original = self.config["original_max_position_embeddings"]
            w.add_rope_scaling_orig_ctx_len(original)
            if self.rope_type == "longrope":
                ratio = self.config["max_position_embeddings"] / original
                w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(ratio) / math.log(original)))

    def write(self):
        path = GOLDEN / "gguf" / f"{self.name}.gguf"
        path.parent.mkdir(exist_ok=True)
        writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[self.arch])
        writer.add_name(self.name)
        self.add_metadata(writer)
        names = gguf.get_tensor_name_map(self.arch, self.layers)
        for name, data, dtype in self.converted():
            stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if stored is None:
                raise SystemExit(f"{self.name}: gguf has no name for {name}")
            add_tensor(writer, stored, np.ascontiguousarray(data), dtype)
        for name, data in self.extra():
            add_tensor(writer, name, data, "F32")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        print(f"{path.name}: {path.stat().st_size} bytes")


def add_tensor(writer, name, data, dtype):
    """Vectors and routers in float32, as the converter has them; matrices as they were."""
    if data.ndim == 1 or name.endswith("ffn_gate_inp.weight") or dtype == "F32":
        writer.add_tensor(name, data.astype(np.float32))
    elif dtype == "F16":
        writer.add_tensor(name, data.astype(np.float16))
    else:
        bits = (data.view(np.uint32) >> 16).astype(np.uint16)
        writer.add_tensor(name, bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)


for golden in sys.argv[1:] or MODELS:
    Model(golden).write()
