"""What scripts/fuzz-http.sh makes of schemathesis' bodies: most name the model that is there, and ask for few tokens."""
import random

import schemathesis


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict) or random.random() < 0.1:
        return body
    if isinstance(body.get('model'), str):
        body['model'] = 'stories'
    for name in ('max_tokens', 'max_completion_tokens'):
        if type(body.get(name)) is int and body[name] > 0:
            body[name] = 1 + body[name] % 8
    return body
