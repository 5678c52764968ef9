// The task node speaks of the task that is chosen: its sockets are named for their role, the empty instruction shows what
// the model will be told, and the tooltip of the choice is the one line of that task. Without this file the node works
// the same and is only less talkative.
import { app } from '../../scripts/app.js';
import { api } from '../../scripts/api.js';
import { dressAll, forget, hear, keepDressed, letGo, repeat } from './task/vue_nodes.js';

const NODE = 'OmniAlphaTask';
const INPUT = 1; // litegraph's name for the left side
let labels = {}; // socket -> the schema's own label
let tasks = {}; // id -> {image, guide, text, pixels, look, instruction}, from the node's schema
let words = {}; // "omnialpha" of locales/<language>/main.json, English where a language lacks it

/** English with a language's words over it, however deep. */
function over(base, more) {
  if (typeof more !== 'object' || typeof base !== 'object') return more ?? base;
  return Object.fromEntries(Object.keys({ ...base, ...more }).map((key) => [key, over(base[key], more[key])]));
}

async function loadWords() {
  const language = app.ui.settings.getSettingValue('Comfy.Locale') ?? 'en';
  const all = await (await api.fetchApi('/i18n')).json();
  words = over(all.en?.omnialpha ?? {}, all[language]?.omnialpha ?? {});
}

const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/** Name a socket. What the artist called it stays; the schema's own label gives way, as it can only be one for all. */
function nameSocket(node, name, text) {
  const socket = node.inputs?.find((input) => input.name === name);
  if (!socket || !text) return;
  if (socket.label && socket.label !== labels[name]) return;
  delete socket.label;
  socket.localized_name = text; // not saved as a choice of the artist's: the schema sets it anew each time
}

function placeholder(node, name, text) {
  const widget = widgetOf(node, name);
  if (widget?.inputEl && text) widget.inputEl.placeholder = text;
}

/** A widget that does nothing for this task is greyed out and says so; its value stays. */
function greyOut(node, name, unused) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  widget.saidByItself ??= widget.tooltip ?? '';
  widget.disabled = unused;
  widget.tooltip = (unused && words.unused?.[name]) || widget.saidByItself;
}

function show(node) {
  const choice = widgetOf(node, 'task');
  const task = tasks[choice?.value];
  if (!task) return;
  for (const name of ['image', 'guide']) nameSocket(node, name, words.roles?.[task[name]] ?? words.unused?.[name]);
  for (const name of ['pixels', 'look']) greyOut(node, name, !task[name]);
  placeholder(node, 'text', words.text?.[task.text]);
  placeholder(node, 'instruction', `${widgetOf(node, 'instruction')?.label ?? 'instruction'}: ${task.instruction}`);
  const said = words.tasks?.[choice.value];
  if (said) choice.tooltip = `${said.title}: ${said.help}`;
  node.graph?.trigger?.('node:slot-label:changed', { nodeId: node.id, slotType: INPUT });
  node.setDirtyCanvas?.(true, true);
  dressAll();
}

/** Run `after` whenever the method has run. */
function follow(object, method, after) {
  const before = object[method];
  object[method] = function (...args) {
    const result = before?.apply(this, args);
    after();
    return result;
  };
}

app.registerExtension({
  name: 'OmniAlpha.Task',
  async init() {
    api.addEventListener('progress_text', hear);
    api.addEventListener('execution_start', forget);
    api.addEventListener('execution_success', repeat);
    await loadWords().catch((error) => console.warn('OmniAlpha: no words for the task node', error));
  },
  beforeRegisterNodeDef(_type, schema) {
    if (schema.name !== NODE) return;
    tasks = schema.input?.required?.task?.[1]?.tasks ?? {};
    labels = { guide: schema.input?.optional?.guide?.[1]?.display_name };
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith('OmniAlpha')) return;
    keepDressed(node);
    follow(node, 'onRemoved', () => letGo(node));
    if (node.comfyClass !== NODE) return;
    const choice = widgetOf(node, 'task');
    if (choice) follow(choice, 'callback', () => show(node));
    follow(node, 'onConfigure', () => show(node)); // a saved workflow brings its own choice
    show(node);
  },
  getNodeMenuItems(node) {
    const task = tasks[widgetOf(node, 'task')?.value];
    const instruction = widgetOf(node, 'instruction');
    if (node.comfyClass !== NODE || !task || !instruction || !words.menu) return [];
    return [{ content: words.menu.instruction, callback: () => (instruction.value = task.instruction) }];
  },
});
