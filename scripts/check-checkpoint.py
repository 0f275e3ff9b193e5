#!/usr/bin/env python3
"""Holds a checkpoint in a folder against Hugging Face transformers: the logits of our runner and of theirs, in float32.

    python3 -m venv ~/.cache/gqa-check && ~/.cache/gqa-check/bin/pip install torch transformers
    npm run build && ~/.cache/gqa-check/bin/python scripts/check-checkpoint.py FOLDER [OURS]

FOLDER is what transformers loads; OURS, the same unless given, is what our runner loads: a GGUF file of the same model, say.
Not part of the tests: it needs a gigabyte of Python packages.
"""
import json
import pathlib
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Largest difference of a logit, by the largest logit.
TOLERANCE = 1e-3
PROGRAM = """
const { loadModel } = require(process.argv[1]);
const ids = JSON.parse(process.argv[3]);
loadModel(process.argv[2]).then(async (model) => {
  const logits = await model.logits(ids);
  await model.dispose();
  console.log(JSON.stringify({ logits: [...logits], kvHeads: model.config.layerKvHeads }));
});
"""


def main(folder, ours):
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    problems = {name: keys for name, keys in report.items() if keys}
    assert not problems, f"transformers did not find all it wanted: {problems}"
    vocabulary = model.config.vocab_size
    ids = [(i * i * 7 + 3) % vocabulary for i in range(48)]
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0, -1]
    library = str(ROOT / "dist" / "lib" / "index.js")
    out = subprocess.run(
        ["node", "-e", PROGRAM, library, ours, json.dumps(ids)],
        check=True, capture_output=True, text=True,
    ).stdout
    found = json.loads(out)
    mine = torch.tensor(found["logits"])
    error = ((mine - theirs).abs().max() / theirs.abs().max()).item()
    same = mine.argmax().item() == theirs.argmax().item()
    print(f"{ours}: KV heads by layer {found['kvHeads']}, transformers has "
          f"{model.config.num_key_value_heads}; error {error:.2e}, "
          f"most likely token {'the same' if same else 'ANOTHER'}")
    return 0 if error < TOLERANCE and same else 1


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[-1]))
