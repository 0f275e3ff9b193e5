#!/usr/bin/env python3
"""Twenty calls of OpenAI's own Python package against a running `gqa serve`, unchanged but for base URL and key.

    python3 -m venv ~/.cache/gqa-check && ~/.cache/gqa-check/bin/pip install openai
    gqa serve --model SmolLM2-135M-Instruct --api-key sk-test --port 8080 &
    ~/.cache/gqa-check/bin/python scripts/openai-check.py http://127.0.0.1:8080 sk-test

test/server/openai.test.ts makes the same calls with the Node package. The model needs a chat template.
"""
import json
import sys
import time
import urllib.request

import openai

URL, KEY = sys.argv[1].rstrip('/'), sys.argv[2] if len(sys.argv) > 2 else 'none'
client = openai.OpenAI(base_url=f'{URL}/v1', api_key=KEY, max_retries=0)
MODEL = client.models.list().data[0].id
ASKED = dict(
    model=MODEL,
    messages=[{'role': 'user', 'content': 'Tell me about a red ball.'}],
    temperature=0,
    max_tokens=24,
)
PROMPTED = dict(model=MODEL, prompt='Once upon a', temperature=0)
ENDLESS = {**ASKED, 'max_tokens': 300, 'extra_body': {'ignore_eos': True}}


def http(path, body=None):
    headers = {'content-type': 'application/json', 'authorization': f'Bearer {KEY}'}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers)) as response:
        return json.load(response)


def running():
    return http('/stats')['engine']['running']


def wait_until(condition):
    end = time.time() + 20
    while not condition():
        assert time.time() < end, 'never true'
        time.sleep(0.005)


def answer():
    return client.chat.completions.create(**ASKED).choices[0].message.content


def raises(kind, call, **fields):
    try:
        call()
    except kind as error:
        for name, value in fields.items():
            assert getattr(error, name) == value, (name, getattr(error, name), value)
        return
    raise AssertionError(f'{kind.__name__} expected')


def models_list():
    assert [model.id for model in client.models.list()] == [MODEL]


def models_retrieve():
    assert client.models.retrieve(MODEL).object == 'model'


def chat():
    completion = client.chat.completions.create(**ASKED)
    assert completion.choices[0].finish_reason in ('stop', 'length')
    assert completion.usage.completion_tokens <= 24
    assert completion._request_id.startswith('req_')


def chat_streamed():
    text, usage = '', None
    options = {'include_usage': True}
    for chunk in client.chat.completions.create(**ASKED, stream=True, stream_options=options):
        text += (chunk.choices[0].delta.content or '') if chunk.choices else ''
        usage = chunk.usage
    assert text == answer() and usage.completion_tokens <= 24


def chat_stream_helper():
    # The package takes an answer that max_tokens cut for an error.
    whole = answer()
    with client.chat.completions.stream(**ASKED, stop=whole[10:15]) as stream:
        content = stream.get_final_completion().choices[0].message.content
    assert content == whole[: whole.index(whole[10:15])]


def several_choices():
    completion = client.chat.completions.create(**{**ASKED, 'temperature': 1}, n=3, seed=1)
    assert len({choice.message.content for choice in completion.choices}) == 3


def stop_string():
    whole = answer()
    stop = whole[10:15]
    choice = client.chat.completions.create(**ASKED, stop=stop).choices[0]
    assert choice.message.content == whole[: whole.index(stop)]
    assert choice.finish_reason == 'stop'


def stop_strings_streamed():
    whole = answer()
    stops = ['no such text', whole[20:26], whole[12:18]]
    text = ''
    for chunk in client.chat.completions.create(**ASKED, stop=stops, stream=True):
        text += chunk.choices[0].delta.content or ''
    assert text == whole[: min(at for at in map(whole.find, stops) if at >= 0)]


def seeds():
    def with_seed(seed):
        fields = {**ASKED, 'temperature': 1, 'seed': seed}
        return client.chat.completions.create(**fields).choices[0].message.content

    assert with_seed(5) == with_seed(5) != with_seed(6)


def logprobs():
    choice = client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=3).choices[0]
    tokens = choice.logprobs.content
    assert b''.join(bytes(token.bytes) for token in tokens).decode() == choice.message.content
    for token in tokens:
        assert token.logprob <= 0 and token.top_logprobs[0].token == token.token
        values = [top.logprob for top in token.top_logprobs]
        assert values == sorted(values, reverse=True)


def logprobs_streamed():
    text = b''
    for chunk in client.chat.completions.create(**ASKED, logprobs=True, stream=True):
        logprobs = chunk.choices[0].logprobs
        for token in logprobs.content if logprobs else []:
            text += bytes(token.bytes)
    assert text.decode() == answer()


def max_completion_tokens():
    fields = {name: value for name, value in ASKED.items() if name != 'max_tokens'}
    completion = client.chat.completions.create(**fields, max_completion_tokens=5)
    assert completion.usage.completion_tokens == 5


def bias():
    fields = {**PROMPTED, 'max_tokens': 1}
    text = client.completions.create(**fields).choices[0].text
    tokens = http('/tokenize', {'prompt': text, 'add_special_tokens': False})['tokens']
    other = client.completions.create(**fields, logit_bias={str(tokens[0]): -100})
    assert other.choices[0].text != text


def completion():
    done = client.completions.create(**PROMPTED, max_tokens=8)
    assert len(done.choices[0].text) > 8
    assert done.usage.total_tokens == done.usage.prompt_tokens + 8


def completions_streamed():
    prompts = ['Once upon a', 'One day']
    texts = ['', '']
    for chunk in client.completions.create(**{**PROMPTED, 'prompt': prompts}, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    whole = client.completions.create(**{**PROMPTED, 'prompt': prompts})
    assert texts == [choice.text for choice in whole.choices]


def completion_logprobs():
    choice = client.completions.create(**PROMPTED, logprobs=2).choices[0]
    assert ''.join(choice.logprobs.tokens) == choice.text
    assert len(choice.logprobs.token_logprobs) == len(choice.logprobs.tokens)


def unknown_model():
    call = lambda: client.chat.completions.create(**{**ASKED, 'model': 'gpt-9'})
    raises(openai.NotFoundError, call, code='model_not_found', param='model')


def refusals():
    wrong = lambda: client.chat.completions.create(**{**ASKED, 'temperature': 'hot'})
    raises(openai.BadRequestError, wrong, param='temperature')
    long = lambda: client.completions.create(model=MODEL, prompt='word ' * 20_000)
    raises(openai.BadRequestError, long, code='context_length_exceeded')
    stranger = client.with_options(api_key='sk-other')
    if KEY != 'none':
        raises(openai.AuthenticationError, stranger.models.list)
    embeddings = lambda: client.embeddings.create(model=MODEL, input='Hi')
    raises(openai.InternalServerError, embeddings, status_code=501, code='not_implemented')


def stream_left():
    with client.chat.completions.create(**ENDLESS, stream=True) as stream:
        next(iter(stream))
    wait_until(lambda: running() == 0)


def request_aborted():
    try:
        client.with_options(timeout=0.2).chat.completions.create(**ENDLESS)
    except openai.APITimeoutError:
        pass
    wait_until(lambda: running() == 0)
    assert len(answer()) > 20


CALLS = [
    models_list, models_retrieve, chat, chat_streamed, chat_stream_helper, several_choices,
    stop_string, stop_strings_streamed, seeds, logprobs, logprobs_streamed, max_completion_tokens,
    bias, completion, completions_streamed, completion_logprobs, unknown_model, refusals,
    stream_left, request_aborted,
]  # fmt: skip

failed = 0
for number, call in enumerate(CALLS, 1):
    try:
        call()
        print(f'{number:2} {call.__name__}')
    except Exception as error:  # each call is judged by itself
        failed += 1
        print(f'{number:2} {call.__name__}: FAILED: {type(error).__name__}: {error}')
print(f'openai {openai.__version__}: {len(CALLS) - failed} passed, {failed} failed')
sys.exit(failed > 0)
