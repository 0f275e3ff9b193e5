#!/usr/bin/env bash
# fuzz-http.sh [EXAMPLES]: schemathesis against /openapi.json of a server of its own, then malformed bytes over
# sockets. Passes if nothing but declared statuses came, and the server is alive and ends with success.
# Needs Python; schemathesis is installed from pip into ~/.cache/gqa-check/server-venv if it is not there.
set -euo pipefail
cd "$(dirname "$0")/.."
examples=${1:-100}
venv=${GQA_CHECK_VENV:-$HOME/.cache/gqa-check/server-venv}
[ -x "$venv/bin/schemathesis" ] || {
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q schemathesis
}

work=$(mktemp -d)
# The embedded model, and a chat template so that chats get as far as the engine.
cp -r models/stories "$work/stories"
sed -i '0,/{/s//{"chat_template": "{% for m in messages %}{{ m.content }} {% endfor %}",/' \
  "$work/stories/tokenizer_config.json"
node dist/lib/cli/main.js serve --model "$work/stories" --port 0 --log-level warn --request-timeout 5 \
  >"$work/url" 2>"$work/log" &
server=$!
trap 'kill -KILL "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 600); do
  [ -s "$work/url" ] && break
  kill -0 "$server"
  sleep 0.1
done
url=$(cat "$work/url")

# The 501 of /v1/embeddings and 503 are declared, so that "not a server error" would be the wrong question: what is asked is
# whether every status, content type and body is one that the document declares.
root=$PWD
cd "$work" # where it leaves a cache
SCHEMATHESIS_HOOKS=fuzz_hooks PYTHONPATH="$root/scripts" "$venv/bin/schemathesis" run "$url/openapi.json" --max-examples "$examples" --phases examples,coverage,fuzzing \
  --checks status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method \
  --request-timeout 60 --suppress-health-check all --seed 7 --no-color

node "$root/scripts/fuzz-bytes.js" "$url" 2000

curl -sf "$url/health" >/dev/null
! grep -E '"level":(50|60)' "$work/log" || { echo 'the server logged errors'; exit 1; }
kill -TERM "$server"
wait "$server"
echo 'fuzz-http: the server is alive, and ended with success'
