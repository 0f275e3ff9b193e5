// The chat page: one conversation, its settings, and the server's figures.
import { answer, ServerError, stats } from './server.js';

const POLL_MS = 1000;
const SETTINGS = 'gqa-settings';

const element = (id) => document.getElementById(id);
const [log, text, send, stop, clear] = ['log', 'text', 'send', 'stop', 'clear'].map(element);
const settings = element('settings').querySelector('form');

/** { role, content }, oldest first. */
let messages = [];
let about = null;
/** Of the answer that is coming; null between answers. */
let running = null;

// ---- settings, kept as long as the tab is open

function value(name) {
  return settings.elements[name].value;
}

function restoreSettings() {
  const kept = JSON.parse(sessionStorage.getItem(SETTINGS) ?? '{}');
  for (const [name, value] of Object.entries(kept)) settings.elements[name].value = value;
}

settings.addEventListener('submit', () => {
  sessionStorage.setItem(SETTINGS, JSON.stringify(Object.fromEntries(new FormData(settings))));
  void refresh();
});
element('open-settings').addEventListener('click', () => element('settings').showModal());

// ---- the conversation

function addMessage(role, content) {
  const message = document.createElement('div');
  message.className = `message ${role}`;
  const author = document.createElement('span');
  author.className = 'hidden';
  author.textContent = role === 'user' ? 'You:' : 'Answer:';
  const body = document.createElement('div');
  body.className = 'text';
  body.textContent = content;
  message.append(author, body);
  element('welcome').hidden = true;
  following(() => log.append(message));
  return {
    append: (piece) => following(() => body.append(piece)),
    note: (words, kind = '') => {
      const note = document.createElement('div');
      note.className = `note ${kind}`;
      note.textContent = words;
      following(() => message.append(note));
    },
    set running(is) {
      message.classList.toggle('running', is);
    },
  };
}

/** Keeps the end in sight, unless the reader has scrolled away from it. */
function following(change) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  change();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

async function ask(content) {
  messages.push({ role: 'user', content });
  addMessage('user', content);
  const shown = addMessage('assistant', '');
  const controller = new AbortController();
  setRunning(controller);
  shown.running = true;
  const said = await receive(shown, controller.signal);
  shown.running = false;
  setRunning(null);
  // What was not answered at all is not part of the conversation.
  if (said === '') messages.pop();
  else messages.push({ role: 'assistant', content: said });
  void refresh();
}

/** Shows the answer as it comes; returns what came of it. */
async function receive(shown, signal) {
  const system = value('system').trim();
  const clock = new Clock();
  let said = '';
  try {
    const pieces = answer({
      model: about?.model.id ?? '',
      chat: about?.model.chat ?? true,
      messages: system === '' ? messages : [{ role: 'system', content: system }, ...messages],
      temperature: Number(value('temperature')),
      maxTokens: Number(value('maxTokens')) || null,
      key: value('key'),
      signal,
    });
    for await (const piece of pieces) {
      if (piece.text !== undefined) {
        said += piece.text;
        shown.append(piece.text);
        clock.piece();
      } else {
        clock.end(piece.usage);
        if (piece.finishReason === 'length') shown.note('Cut off: the longest answer was reached.');
      }
    }
  } catch (error) {
    if (signal.aborted) shown.note('Stopped.');
    else shown.note(error instanceof ServerError ? error.message : String(error), 'error');
  }
  return said;
}

/** Tokens a second of one answer, from its first token on. */
class Clock {
  started = performance.now();
  first = 0;
  pieces = 0;

  piece() {
    this.first ||= performance.now();
    this.pieces++;
    // A piece is a token, nearly always; the end knows better.
    this.show(this.pieces, performance.now());
  }

  end({ completion_tokens: tokens }) {
    this.show(tokens, performance.now());
  }

  show(tokens, now) {
    const wait = ((this.first || now) - this.started) / 1000;
    const seconds = (now - this.first) / 1000;
    const rate =
      tokens > 1 && seconds > 0 ? `${((tokens - 1) / seconds).toFixed(0)} tokens/s, ` : '';
    const plural = tokens === 1 ? 'token' : 'tokens';
    element('speed').textContent = `${rate}${tokens} ${plural}, first after ${wait.toFixed(2)} s`;
  }
}

function setRunning(controller) {
  running = controller;
  send.hidden = controller !== null;
  stop.hidden = controller === null;
  clear.disabled = controller !== null || messages.length === 0;
  if (controller === null) text.focus();
}

// ---- input

function grow() {
  text.style.height = 'auto';
  text.style.height = `${text.scrollHeight}px`;
}

function submit() {
  const content = text.value.trim();
  if (content === '' || running !== null) return;
  text.value = '';
  grow();
  void ask(content);
}

element('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  submit();
});
text.addEventListener('input', grow);
text.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
stop.addEventListener('click', () => running?.abort());
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !element('settings').open) running?.abort();
});
clear.addEventListener('click', () => {
  messages = [];
  for (const message of log.querySelectorAll('.message')) message.remove();
  element('welcome').hidden = false;
  element('speed').textContent = '';
  setRunning(null);
});

// ---- the server's figures

async function refresh() {
  try {
    about = await stats(value('key'));
  } catch (error) {
    element('cache-text').textContent = '';
    element('model').textContent = error.message;
    return;
  }
  const { model, engine } = about;
  const { capacityTokens, usedTokens } = engine.cache;
  const { kind, isa, threads } = model.backend;
  element('model').textContent = model.id;
  element('model').title = `${kind}, ${isa}, ${threads} threads; context ${model.contextLength}`;
  document.title = `${model.id} - gqa`;
  if (!model.chat) {
    element('welcome-more').textContent =
      'This model knows no chat: it goes on from where your text ends.';
  }
  const fill = capacityTokens > 0 ? usedTokens / capacityTokens : 0;
  element('cache').value = fill;
  element('cache-text').textContent = `${Math.round(fill * 100)} % of ${capacityTokens} tokens`;
}

async function poll() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

restoreSettings();
grow();
void poll();
