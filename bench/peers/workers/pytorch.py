"""PyTorch's scaled_dot_product_attention, as a contender of bench:peers (protocol.ts says what it is asked).

  --variant gqa     enable_gqa=True: PyTorch spreads K and V over the group
  --variant folded  decode: the group folded into the query tokens by hand, so that K and V are read once;
                    prefill: K and V spread over the group before the timing
"""
import argparse
import json
import sys
import time

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def load(path, dtype, heads, dim):
    """[tokens, heads, dim] of a file as [1, heads, tokens, dim]."""
    bits = np.fromfile(path, np.float32 if dtype == "f32" else np.int16)
    tensor = torch.from_numpy(bits).view(DTYPES[dtype]).view(1, -1, heads, dim)
    return tensor.transpose(1, 2).contiguous()


class Attention:
    def __init__(self, folded):
        self.folded = folded
        self.next = 0

    def prepare(self, task):
        heads, kv_heads, dim = task["heads"], task["kvHeads"], task["headDim"]
        group = heads // kv_heads
        decode = task["op"] == "decode"
        torch.set_num_threads(task["threads"])
        self.copies = None
        q = load(task["q"], task["inputs"], heads, dim)
        k = load(task["k"], task["inputs"], kv_heads, dim)
        v = load(task["v"], task["inputs"], kv_heads, dim)
        options = {"is_causal": not decode, "enable_gqa": not self.folded and group > 1}
        if self.folded and decode:
            q = q.reshape(1, kv_heads, group, dim)
        elif self.folded:
            k, v = (x.repeat_interleave(group, 1) for x in (k, v))
        self.copies = [(k.clone(), v.clone()) for _ in range(task["copies"])]
        self.call = lambda copy: scaled_dot_product_attention(q, *self.copies[copy], **options)
        out = self.call(len(self.copies) - 1).reshape(heads, -1, dim).transpose(0, 1)
        out.to(torch.float32).contiguous().numpy().tofile(task["output"])

    def time(self, seconds):
        microseconds = []
        end = time.perf_counter() + seconds
        while True:
            start = time.perf_counter()
            self.call(self.next % len(self.copies))
            now = time.perf_counter()
            microseconds.append((now - start) * 1e6)
            self.next += 1
            if now > end:
                return microseconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", choices=["gqa", "folded"], required=True)
    contender = Attention(parser.parse_args().variant == "folded")
    handlers = {"prepare": contender.prepare, "time": contender.time}
    with torch.inference_mode():
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = {"value": handlers[request["command"]](request["argument"])}
            except Exception as error:  # told to the asker, who decides
                answer = {"error": repr(error)}
            print(json.dumps(answer), flush=True)


main()
