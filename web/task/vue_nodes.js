// What task.js shows, on Vue nodes. They are drawn from copies of a node's state: older ones keep a socket's first name,
// and their text fields know no placeholder. Both are set on the elements, and again whenever those are made anew.
import { make } from '../viewer/dom.js';

// Older Vue nodes hide placeholders until the field is used.
const STYLE = '.omnialpha-hint::placeholder { opacity: 0.7 !important; }';
const dressed = new Set(); // task nodes there are
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
}

/** Dress all task nodes that are drawn, once per frame at most. */
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

/** Keep a node dressed for as long as it is there. */
export function keepDressed(node) {
  dressed.add(node);
  if (watching) return;
  document.head.append(make('style', {}, STYLE));
  watching = new MutationObserver(dressAll);
  watching.observe(document.body, { childList: true, subtree: true });
}

export const letGo = (node) => dressed.delete(node);
