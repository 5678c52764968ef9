// What stands on the node: the picture, and below it what can be done with the layers.
import { app } from '../../../scripts/app.js';
import { createControls } from './controls.js';
import { make } from './dom.js';
import { createPicture } from './picture.js';
import { words } from './words.js';
import { openZoom } from './zoom.js';

const STILL = 4; // pixels a pointer may move and still click
const OUR_KEYS = new Set([' ', 'Enter', 'ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', 'Home', 'End', 'PageUp', 'PageDown']);

/** The panel; `close` ends all it does. */
export function createPanel(store) {
  let dialog = null;
  let pressed = null;
  const picture = createPicture(store);
  const controls = createControls(store);
  const note = make('p', { class: 'omnialpha-note', role: 'status' });
  const stage = make('button', {
    type: 'button', class: 'omnialpha-stage', title: words.enlarge, 'aria-label': words.enlarge,
    onpointerdown: (event) => (pressed = [event.clientX, event.clientY]),
    onclick: (event) => {
      // Vue nodes are dragged by whatever is on them.
      const dragged = event.detail && pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > STILL;
      if (!dragged && !dialog?.open) dialog = openZoom(store);
    },
  }, picture.element);
  const tools = make('div', {
    class: 'omnialpha-tools', onpointerdown: (event) => event.button === 0 && event.stopPropagation(), // a slider never drags the node
  }, ...controls.elements);
  const element = make('div', {
    class: 'omnialpha-viewer',
    onkeydown: (event) => OUR_KEYS.has(event.key) && event.stopPropagation(),
  }, stage, note, tools);
  const stop = store.subscribe((state) => {
    stage.hidden = tools.hidden = !state.layers.length;
    note.textContent = state.note;
    note.hidden = !state.note;
  });
  leaveToCanvas(element, controls.list);
  return {
    element,
    close() {
      for (const end of [stop, picture.stop, controls.stop]) end();
      dialog?.close();
    },
  };
}

const scrolls = (list) => list.scrollHeight > list.clientHeight;

/** Wheel and middle button move the graph wherever the panel has no use for them. Vue nodes do this themselves. */
function leaveToCanvas(element, list) {
  const classic = () => !window.LiteGraph?.vueNodesMode;
  list.addEventListener('pointerenter', () => (list.dataset.captureWheel = scrolls(list))); // what Vue nodes ask for
  element.addEventListener('wheel', (event) => {
    if (!classic() || (list.contains(event.target) && scrolls(list) && !event.ctrlKey)) return;
    event.preventDefault(); // Ctrl and wheel would zoom the page
    app.canvas.processMouseWheel(event);
  }, { passive: false });
  const pass = { pointerdown: 'processMouseDown', pointermove: 'processMouseMove', pointerup: 'processMouseUp' };
  for (const [name, method] of Object.entries(pass))
    element.addEventListener(name, (event) => {
      const middle = name === 'pointermove' ? event.buttons & 4 : event.button === 1;
      if (middle && classic()) app.canvas[method](event);
    });
}
