// The large view: a dialog over everything, with the same state as the node.
import { createControls } from './controls.js';
import { iconButton, make } from './dom.js';
import { createPicture } from './picture.js';
import { words } from './words.js';

const CLOSEST = 64; // screen pixels per pixel of the picture
const STEP = 1.25; // of the + and - keys
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** Open the large view; returns the dialog. */
export function openZoom(store) {
  const picture = createPicture(store);
  const controls = createControls(store);
  const pane = make('div', {
    class: 'omnialpha-pane', tabindex: '0', role: 'application', 'aria-label': words.view, autofocus: '',
  }, picture.element);
  const view = panAndZoom(pane, picture.element, () => store.state.layers[0] ?? { width: 1, height: 1 });
  const dialog = make('dialog', { class: 'omnialpha-zoom', 'aria-label': words.layers }, pane, make('div', {
    class: 'omnialpha-side',
  }, make('div', { class: 'omnialpha-bar' },
    iconButton('pi-search-minus', words.farther, () => view.zoom(1 / STEP)),
    iconButton('pi-search-plus', words.closer, () => view.zoom(STEP)),
    iconButton('1:1', words.actual, () => view.actual()),
    iconButton('pi-window-maximize', words.fit, () => view.fit()),
    view.label,
    iconButton('pi-times', words.close, () => dialog.close())), ...controls.elements));
  // The graph below would take keys such as Delete for its own.
  dialog.addEventListener('keydown', (event) => event.stopPropagation());
  pane.addEventListener('keydown', (event) => view.key(event));
  document.body.append(dialog);
  dialog.showModal();
  view.fit();
  let sized = '';
  const stop = store.subscribe(({ layers: [first] }) => {
    const size = `${first?.width}x${first?.height}`;
    if (sized && size !== sized) view.fit();
    sized = size;
  });
  const resized = new ResizeObserver(() => view.refit());
  resized.observe(pane);
  dialog.addEventListener('close', () => {
    resized.disconnect();
    for (const end of [stop, picture.stop, controls.stop]) end();
    dialog.remove();
  });
  return dialog;
}

/** Move and scale `board` within `pane`; `sizeOf` gives its {width, height} at scale 1. */
function panAndZoom(pane, board, sizeOf) {
  let scale = 1, x = 0, y = 0, fitted = true;
  const label = make('output', { class: 'omnialpha-size' });

  function place() {
    const { width, height } = sizeOf();
    Object.assign(board.style, { width: `${width * scale}px`, height: `${height * scale}px`, left: `${x}px`, top: `${y}px` });
    board.classList.toggle('omnialpha-pixels', scale >= 2); // close up, an artist wants to see the pixels
    label.value = `${Math.round(scale * 100)} %`;
  }
  function centre(to) {
    const { width, height } = sizeOf();
    scale = to;
    [x, y] = [(pane.clientWidth - width * scale) / 2, (pane.clientHeight - height * scale) / 2];
    place();
  }
  const fitting = () => Math.min(pane.clientWidth / sizeOf().width, pane.clientHeight / sizeOf().height, CLOSEST);
  function fit() {
    fitted = true;
    centre(fitting());
  }
  function actual() {
    fitted = false;
    centre(1);
  }
  function zoom(factor, atX = pane.clientWidth / 2, atY = pane.clientHeight / 2) {
    const least = Math.min(fitting(), 1) / 4;
    const next = Math.min(Math.max(scale * factor, least), CLOSEST);
    [x, y] = [atX - ((atX - x) * next) / scale, atY - ((atY - y) * next) / scale]; // what is there stays there
    scale = next;
    fitted = false;
    place();
  }
  function move(dx, dy) {
    [x, y, fitted] = [x + dx, y + dy, false];
    place();
  }
  function key(event) {
    const arrow = ARROWS[event.key];
    const step = event.shiftKey ? 200 : 40;
    if (arrow) move(arrow[0] * step, arrow[1] * step);
    else if (event.key === '+' || event.key === '=') zoom(STEP);
    else if (event.key === '-') zoom(1 / STEP);
    else if (event.key === '0') fit();
    else if (event.key === '1') actual();
    else return;
    event.preventDefault();
  }
  pane.addEventListener('wheel', (event) => {
    event.preventDefault();
    const { left, top } = pane.getBoundingClientRect();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    zoom(Math.exp(-event.deltaY * lines * 0.0015), event.clientX - left, event.clientY - top);
  }, { passive: false });
  pane.addEventListener('pointerdown', (event) => {
    if (event.button > 1) return;
    event.preventDefault(); // no autoscroll on the middle button
    pane.focus();
    pane.setPointerCapture(event.pointerId);
  });
  pane.addEventListener('pointermove', (event) => {
    if (pane.hasPointerCapture(event.pointerId)) move(event.movementX, event.movementY);
  });
  pane.addEventListener('dblclick', () => (fitted ? actual() : fit()));
  return { fit, actual, zoom, key, label, refit: () => fitted && fit() };
}
