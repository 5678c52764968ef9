// Preview Layers shows its layers over each other, each to be hidden, shown alone or made fainter. Without this file the
// node shows them one by one, as core's preview node does.
import { app } from '../../scripts/app.js';
import { api } from '../../scripts/api.js';
import { loadStyle } from './viewer/dom.js';
import { createPanel } from './viewer/panel.js';
import { loadLayers } from './viewer/picture.js';
import { carryOver, createStore, recall, remember } from './viewer/state.js';
import { loadWords, words } from './viewer/words.js';

const NODE = 'OmniAlphaPreviewLayers';
const SIZE = [340, 480]; // of a new node
const LEAST_HEIGHT = 200; // of the viewer; viewer.css has the same
const viewers = new WeakMap(); // node -> what shows a run's results on it

/** Under which the frontend keeps a node's results: its id, and before it that of the subgraph it is in. */
function locator({ graph, id }) {
  return !graph || graph === app.graph?.rootGraph || graph.isRootGraph ? String(id) : `${graph.id}:${id}`;
}

const memoryKey = (node) => `${app.graph?.rootGraph?.id ?? app.graph?.id}/${locator(node)}`;

const urlOf = ({ filename, subfolder = '', type = 'temp' }) =>
  api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);

/** Put the viewer on a node. */
function addViewer(node) {
  const store = createStore();
  store.set({ note: words.empty });
  const panel = createPanel(store);
  const widget = node.addDOMWidget('viewer', 'OMNIALPHA_VIEWER', panel.element, {
    serialize: false, hideOnZoom: false, margin: 6, getMinHeight: () => LEAST_HEIGHT, getValue: () => '', setValue: () => {},
  });
  widget.serialize = false; // neither the API format (options) nor the saved values (this) know of it
  node.setSize(SIZE.map((length, axis) => Math.max(length, node.size[axis])));

  // The frontend shows results that are called images by itself. Not on this node.
  node.onDrawBackground = () => {}; // classic nodes
  node.hideOutputImages = true; // Vue nodes; older ones obey viewer.css

  let showing = '';
  async function show(output) {
    takePlace(node, panel.element);
    const files = output?.images ?? [];
    const urls = files.map(urlOf);
    const now = urls.join();
    if (!urls.length || now === showing) return;
    showing = now;
    try {
      const layers = await loadLayers(urls, output.omnialpha_names ?? []);
      if (showing !== now) return; // another run was quicker
      const looks = carryOver(store.state.layers.length ? store.state : recall(memoryKey(node)), layers.length);
      store.set({ ...looks, layers, note: '' });
    } catch {
      if (showing === now) store.set({ layers: [], note: words.gone });
    }
  }
  viewers.set(node, show);
  store.subscribe((state) => state.layers.length && remember(memoryKey(node), state));

  after(node, 'onExecuted', show);
  after(node, 'onRemoved', () => panel.close());
}

/** Vue nodes that undo makes anew may go on showing the element of the node that was there before. */
function takePlace({ id, graph }, element) {
  if (element.isConnected || graph !== app.canvas?.graph) return;
  document.querySelector(`[data-node-id="${CSS.escape(id)}"] .omnialpha-viewer`)?.replaceWith(element);
}

/** Run `extra` after a method of an object, with the same arguments. */
function after(object, method, extra) {
  const before = object[method];
  object[method] = function (...given) {
    const result = before?.apply(this, given);
    extra(...given);
    return result;
  };
}

/** Results that were there before the node was: after undo, or after coming back to a tab. */
const showKept = (node, outputs) => viewers.get(node)?.(outputs?.[locator(node)]);

function everyNode(graph) {
  const nodes = graph?.nodes ?? graph?._nodes ?? [];
  return nodes.flatMap((node) => [node, ...(node.subgraph ? everyNode(node.subgraph) : [])]);
}

app.registerExtension({
  name: 'OmniAlpha.LayerViewer',
  async init() {
    loadStyle();
    await loadWords().catch((error) => console.warn('OmniAlpha: the layer viewer speaks English', error));
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) addViewer(node);
  },
  loadedGraphNode(node) {
    showKept(node, app.nodeOutputs);
  },
  onNodeOutputsUpdated(outputs) {
    for (const node of everyNode(app.graph?.rootGraph ?? app.graph)) showKept(node, outputs);
  },
});
