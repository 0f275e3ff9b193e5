#!/usr/bin/env python3
"""What Hugging Face's tokenizers, SentencePiece and Jinja make of odd texts and of conversations.

    python3 -m venv ~/.cache/gqa-check
    ~/.cache/gqa-check/bin/pip install transformers tokenizers sentencepiece jinja2
    ~/.cache/gqa-check/bin/python scripts/make-golden-text.py

Writes test/golden/text/: NAME.json for each kind of tokenizer, a small vocabulary trained here on the project's own texts
with the pre-tokenizer of the published models, and templates.json. No published vocabulary or template is in it.
"""
import io
import json
import pathlib

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.utils.chat_template_utils import render_jinja_template

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "test" / "golden" / "text"
SPACE = "\u2581"

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CASED = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]%s[\p{Ll}\p{Lm}\p{Lo}\p{M}]%s"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n%s]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s" + TAIL % ""
O200K = (CASED % ("*", "+")) + CONTRACTIONS + "?|" + (CASED % ("+", "*")) + CONTRACTIONS + r"?|\p{N}{1,3}" + TAIL % "/"
TEKKEN = (CASED % ("*", "+")) + "|" + (CASED % ("+", "*")) + r"|\p{N}" + TAIL % "/"

TEXTS = [
    "Hello, world!", " leading and trailing ", "two  spaces   three\t\ttabs", "line\nbreaks\r\n\r\n and\n\n\nmore\n",
    "I'll don't WE'VE they'RE it's 'S rock'n'roll", "1 12 123 1234 12345 3.14159 1,000,000 2nd x86_64",
    "٣٤٥ ²³ Ⅷ ½ 一二三", "naïve café déjà Ångström", "cafe\u0301 re\u0301sume\u0301 \u1e9b\u0323", "日本語のテキスト、中文文本。한국어",
    "Привет, как дела? Γειά σου", "مرحبا بالعالم שלום", "emoji 😀👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 ❤️", "a\u0085b\ufeffc\u00a0d\u200be\u2028f",
    "def f(x):\n    return x**2  # sq\n\tif (a!=b) {c->d;}", "((((....))))!!!???$$$^^^```~~~|||<<<>>>", "$5.00 + 10% = #7 @home & 'quoted' \"double\"",
    "CamelCase snake_case kebab-case SCREAMING", "http://example.com/a?b=c&d=e#f", "a", " ", "\n", "   \n  \n ", "aaaaaaaaaaaaaaaaaaaaaaaa",
    "<0x0A> \u2581 <unk> <s>", "<|end|> and <|begin|>text", "x<|end|>", "Ünïcödé\u0000null\u0007bell", "\U0001d54f\U0001d556 ﬁ ﷺ",
    "The quick brown fox jumps over the lazy dog. Once upon a time there was a little girl.", "don’t “smart” – dashes — …",
]


def corpus():
    paths = [ROOT / "test/golden/stories-sample.txt", ROOT / "README.md", ROOT / "docs/architecture.md"]
    return "\n".join(path.read_text() for path in paths) + "\n" + "\n".join(TEXTS)


def split(pattern, behavior="isolated"):
    return pre_tokenizers.Split(Regex(pattern), behavior)


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def sequence(*parts):
    return pre_tokenizers.Sequence(list(parts))


# Name: pre-tokenizer, normalizer, whole pieces first, GGUF's name of it (None: GGUF has none).
BYTE_LEVEL = {
    "gpt-2": (byte_level(True), None, False, "gpt-2"),
    "gpt-neox": (byte_level(True), normalizers.NFC(), False, None),
    "smollm": (sequence(pre_tokenizers.Digits(individual_digits=True), byte_level(True)), None, False, "smollm"),
    "falcon": (sequence(pre_tokenizers.Punctuation("contiguous"), byte_level(True),
                        pre_tokenizers.Digits(individual_digits=False), split("[0-9][0-9][0-9]")), None, False, "falcon"),
    "llama-bpe": (sequence(split(WORDS % "{1,3}"), byte_level(False)), None, True, "llama-bpe"),
    "qwen2": (sequence(split(WORDS % ""), byte_level(False)), normalizers.NFC(), False, "qwen2"),
    "glm4": (sequence(split(WORDS % "{1,3}"), byte_level(False)), None, True, "glm4"),
    "gpt-4o": (sequence(split(O200K), byte_level(False)), None, True, "gpt-4o"),
    "tekken": (sequence(split(TEKKEN), byte_level(False)), None, True, "tekken"),
}


def train_byte_level(pre, normalizer, whole):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<|end|>", "<|begin|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus().split("\n\n"), trainer)
    tokenizer.model.ignore_merges = whole
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=500, special_tokens=["<unk>", "<|end|>", "<|begin|>"], unk_token="<unk>",
                                      show_progress=False)
    tokenizer.train_from_iterator(corpus().split("\n\n"), trainer)
    return tokenizer


def sentence_piece(prefix):
    """Tokens, scores and types of SentencePiece's BPE with bytes as last resort, as Llama and Gemma have it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus().split("\n")), model_writer=model, vocab_size=700, model_type="bpe",
        byte_fallback=True, add_dummy_prefix=prefix, remove_extra_whitespaces=False, split_digits=True,
        normalization_rule_name="identity", character_coverage=0.98, minloglevel=2, num_threads=1)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(processor.vocab_size())
    kind = lambda i: (2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else 1)
    vocabulary = {
        "tokens": [processor.id_to_piece(i) for i in ids], "scores": [processor.get_score(i) for i in ids],
        "types": [kind(i) for i in ids], "addSpacePrefix": prefix,
    }
    # Of a text that spells a control token SentencePiece makes characters, and others that token.
    texts = [text for text in TEXTS if "<s>" not in text]
    return vocabulary, texts, [processor.encode(text) for text in texts]


def llama_json(vocabulary):
    """tokenizer.json of the same, as transformers makes it of tokenizer.model: merges by rank."""
    ids = {token: i for i, token in enumerate(vocabulary["tokens"]) if vocabulary["types"][i] == 1}
    merges = []
    for token, i in ids.items():
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        cuts = [cut for cut in cuts if cut[0] in ids and cut[1] in ids]
        merges += [(vocabulary["scores"][i], *cut) for cut in sorted(cuts, key=lambda c: (ids[c[0]], ids[c[1]]))]
    merges = [cut[1:] for cut in sorted(merges, key=lambda cut: cut[0], reverse=True)]
    all_ids = {token: i for i, token in enumerate(vocabulary["tokens"])}
    tokenizer = Tokenizer(models.BPE(all_ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary["addSpacePrefix"]:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def write(name, value):
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def write_tokenizer(name, tokenizer, **more):
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    decoded = [tokenizer.decode(ids, skip_special_tokens=False) for ids in encoded]
    write(name, dict(tokenizer=json.loads(tokenizer.to_str()), texts=TEXTS, ids=encoded, decoded=decoded, **more))


# The forms that published templates have, in our own words.
TEMPLATES = {
    "chatml": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "headers": "{{- bos_token }}\n{%- if custom_tools is defined %}\n    {%- set tools = custom_tools %}\n{%- endif %}\n{%- if not tools is defined %}\n    {%- set tools = none %}\n{%- endif %}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = \"\" %}\n{%- endif %}\n{{- \"<|start|>system<|sep|>\\n\\n\" }}\n{%- if tools is not none %}\n    {{- \"Environment: tools\\n\" }}\n{%- endif %}\n{{- system_message }}\n{{- \"<|eot|>\" }}\n{%- for message in messages %}\n    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}\n        {{- '<|start|>' + message['role'] + '<|sep|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}\n    {%- elif 'tool_calls' in message %}\n        {{- raise_exception(\"no tools\") }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start|>assistant<|sep|>\\n\\n' }}\n{%- endif %}\n",
    "turns": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}",
    "inst": "{%- if messages[0][\"role\"] == \"system\" %}\n    {%- set system_message = messages[0][\"content\"] %}\n    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n{%- set ns = namespace(index=0) %}\n{%- for message in loop_messages %}\n    {%- if (message[\"role\"] == \"user\") != (ns.index % 2 == 0) %}\n        {{- raise_exception(\"After the optional system message, conversation roles must alternate\") }}\n    {%- endif %}\n    {%- set ns.index = ns.index + 1 %}\n{%- endfor %}\n{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if message[\"role\"] == \"user\" %}\n        {%- if loop.first and system_message is defined %}\n            {{- \" [INST] \" + system_message + \"\\n\\n\" + message[\"content\"] + \" [/INST]\" }}\n        {%- else %}\n            {{- \" [INST] \" + message[\"content\"] + \" [/INST]\" }}\n        {%- endif %}\n    {%- elif message[\"role\"] == \"assistant\" %}\n        {{- \" \" + message[\"content\"] + eos_token}}\n    {%- else %}\n        {{- raise_exception(\"Only user and assistant roles are supported, with the exception of an initial optional system message!\") }}\n    {%- endif %}\n{%- endfor %}\n",
    "thinking": "{%- if tools %}{{ 'tools' }}{%- endif %}\n{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.multi_step_tool and message.role == \"user\" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n        {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}\n    {%- if message.role == \"assistant\" %}\n        {%- set reasoning = '' %}\n        {%- if '</think>' in content %}\n            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n        {%- endif %}\n        {%- if loop.index0 > ns.last_query_index or (not loop.last and reasoning) %}\n            {{- '<a>' + reasoning.strip('\\n') + '|' + content + '\\n' }}\n        {%- else %}\n            {{- '<a>' + content + '\\n' }}\n        {%- endif %}\n    {%- else %}\n        {{- '<' + message.role + '>' + content + '\\n' }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<a>' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}",
    "macros": "{%- macro say(role, text, end='<|end|>') -%}\n<|start|>{{ role }}<|message|>{{ text }}{{ end }}\n{%- endmacro -%}\n{{ say('system', 'Reasoning: ' ~ (effort | default('medium'))) }}\n{%- for message in messages -%}\n{%- if message.role in ['user', 'system'] -%}\n{{ say(message.role, message.content | replace('\\r', '') | upper) }}\n{%- elif message.role == 'assistant' -%}\n{{ say('assistant', message.content[:5] ~ '/' ~ message.content[-3:], end='<|return|>') }}\n{%- else -%}\n{{ raise_exception('Unknown role: ' + message.role) }}\n{%- endif -%}\n{%- endfor -%}\n{%- if add_generation_prompt -%}\n<|start|>assistant\n{%- endif -%}",
    "spelled": "[gMASK]<sop>\n{%- for m in messages if m.role != 'tool' %}\n<|{{ m.role }}|>\n{{ m.content|string|trim }}{{ loop.length }}{{ m|tojson }}\n{% if not loop.last %}\n    --\n{% endif %}\n{% endfor %}\n{# a comment #}\n<|assistant|>",
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{%- else %}[{{ m.content }}]{% endif %}\n{% endfor %}",
}
CONVERSATIONS = [
    [dict(role="user", content="Hi there!")],
    [dict(role="system", content="  Be brief. "), dict(role="user", content="2 + 2?")],
    [dict(role="user", content="One\r\ntwo"), dict(role="assistant", content="<think>\nhm\n</think>\n\nTwo lines"),
     dict(role="user", content=" {{ bos_token }} <b>\"quoted\"</b> 😀 ")],
    [dict(role="assistant", content="I begin."), dict(role="user", content="No.")],
    [dict(role="user", content=""), dict(role="user", content="again")],
    [dict(role="robot", content="bzzt")],
]
NAMES = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def rendered(template, conversation):
    try:
        text, _ = render_jinja_template([conversation], chat_template=template, add_generation_prompt=True, **NAMES)
        return dict(text=text[0])
    except Exception as error:
        return dict(error=str(error))


if __name__ == "__main__":
    for name, (pre, normalizer, whole, gguf) in BYTE_LEVEL.items():
        write_tokenizer(name, train_byte_level(pre, normalizer, whole), pre=gguf)
    write_tokenizer("unigram", unigram(), pre=None)
    for name, prefix in (("llama-spm", True), ("gemma-spm", False)):
        vocabulary, texts, ids = sentence_piece(prefix)
        write_tokenizer(name, llama_json(vocabulary), pre=None)
        write(f"{name}.model", dict(**vocabulary, texts=texts, ids=ids))
    write("templates", dict(names=NAMES, conversations=CONVERSATIONS, templates=[
        dict(name=name, template=text, results=[rendered(text, chat) for chat in CONVERSATIONS])
        for name, text in TEMPLATES.items()]))
