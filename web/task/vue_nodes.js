// What classic nodes show and Vue nodes may not: they are drawn from copies of a node's state, older ones keep a socket's
// first name and pass over notes, and their text fields know no placeholder. All of it is set on the elements, and again
// whenever those are made anew.
import { make } from '../viewer/dom.js';

// Older Vue nodes hide placeholders until the field is used.
const STYLE = `.omnialpha-hint::placeholder { opacity: 0.7 !important; }
  .omnialpha-said { padding: 4px 16px 8px; font-size: 12px; color: var(--fg-color, inherit); overflow-wrap: anywhere; }`;
const said = new Map(); // id of a node in a run -> its last note
const dressed = new Set(); // nodes of ours that there are
let watching, waiting = false;

function set(element, property, value) {
  if (element && value && element[property].trim() !== value) element[property] = value;
}

function dress(node, element) {
  node.inputs?.forEach((socket, index) => {
    if (socket.widget) return;
    const row = element.querySelector(`[data-slot-key$="-in-${index}"]`)?.closest('.lg-slot--input');
    set(row?.querySelector('span.truncate'), 'textContent', socket.label || socket.localized_name || socket.name);
  });
  for (const area of element.querySelectorAll('textarea')) {
    const title = element.querySelector(`label[for="${CSS.escape(area.id)}"]`)?.textContent;
    const widget = node.widgets?.find((one) => (one.label || one.name) === title);
    const hint = widget?.inputEl?.placeholder ?? '';
    // The field's title stands above it already.
    set(area, 'placeholder', hint.startsWith(title) ? hint.slice(title.length).replace(/^[:：]\s*/, '') : hint);
    area.classList.add('omnialpha-hint');
  }
  showNote(node, element);
}

/** Show what a node said, where the frontend does not. */
function showNote(node, element) {
  const text = node.graph === (window.app.graph.rootGraph ?? window.app.graph) ? said.get(String(node.id)) : '';
  const ours = element.querySelector('.omnialpha-said');
  if (!text || (!ours && element.textContent.includes(text))) return ours?.remove();
  if (!ours) return element.append(make('div', { class: 'omnialpha-said' }, text));
  set(ours, 'textContent', text);
}

/** Dress all nodes of ours that are drawn, once per frame at most. */
export function dressAll() {
  if (waiting || !window.LiteGraph?.vueNodesMode) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const node of dressed) {
      const element = document.querySelector(`[data-node-id="${CSS.escape(node.id)}"]`);
      if (element && node.graph === window.app.canvas?.graph) dress(node, element);
    }
  });
}

/** Classic nodes show notes, but newer ones only while the run lasts: then a message at the side stays for a while. */
function sayAloud(id, text) {
  const { app, LiteGraph } = window;
  const node = (app.graph.rootGraph ?? app.graph).getNodeById(id);
  const shown = () => [...document.querySelectorAll('.dom-widget')]
    .some((one) => one.checkVisibility() && one.textContent.includes(text));
  if (!dressed.has(node) || LiteGraph.vueNodesMode || shown()) return;
  app.extensionManager.toast.add({ severity: 'warn', summary: node.title, detail: text, life: 20_000 });
}

/** A run has ended: whatever was said has to be there a moment later. */
export function repeat() {
  setTimeout(() => said.forEach((text, id) => sayAloud(id, text)), 1000);
}

/** Take a note that a node's run has sent. */
export function hear({ detail }) {
  said.set(String(detail.nodeId), detail.text);
  dressAll();
}

/** Another run: its nodes say anew what is to be said. */
export function forget() {
  said.clear();
  dressAll();
}

/** Keep a node dressed for as long as it is there. */
export function keepDressed(node) {
  dressed.add(node);
  if (watching) return;
  document.head.append(make('style', {}, STYLE));
  watching = new MutationObserver(dressAll);
  watching.observe(document.body, { childList: true, subtree: true });
}

export const letGo = (node) => dressed.delete(node);
