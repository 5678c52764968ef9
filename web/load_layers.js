// Load Layers takes layered files from its upload button and when they are dropped on it. The frontend's own upload takes
// only what the browser calls an image, and browsers call a PSD or an OpenRaster file all kinds of things.
import { app } from '../../scripts/app.js';
import { api } from '../../scripts/api.js';
import { make } from './viewer/dom.js';

const NODE = 'OmniAlphaLoadLayers';
const ACCEPT = 'image/*,.psd,.psb,.ora';
const isLayered = (name) => /\.(psd|psb|ora)( \[\w+\])?$/i.test(name); // [output]: of another folder than the input's

const isMarkup = (name) => /[<>]/.test(name); // classic nodes show lists of names as HTML

/**
 * Let the frontend upload files and choose what came of them; a layered file goes under a type it takes for a picture,
 * and none under a name that is HTML.
 */
function upload(node, files) {
  return node.pasteFiles(files.map((file) => (!isLayered(file.name) && !isMarkup(file.name) ? file
    : new File([file], file.name.replace(/[<>]/g, '_'), {
      type: isLayered(file.name) ? 'image/vnd.adobe.photoshop' : file.type, lastModified: file.lastModified,
    }))));
}

/** What the upload button does. The node keeps the field, as browsers forget one that nothing holds while they ask. */
function chooser(node) {
  const input = make('input', { type: 'file', accept: ACCEPT, onchange: () => upload(node, [...input.files]) });
  return () => {
    input.value = ''; // the same file, changed since, may be chosen again
    input.click();
  };
}

/** Browsers cannot show layered files: let the frontend show nothing, rather than an error or the picture before. */
function showNoPicture(node) {
  node.imgs = undefined; // on classic nodes; older Vue nodes follow a result without pictures, newer ones hideOutputImages
  const preview = node.widgets.findIndex((widget) => widget.name === '$$canvas-image-preview');
  if (preview >= 0) node.widgets.splice(preview, 1); // cannot be drawn without a picture; the next one makes it anew
  if (node.graph && node.graph === (app.graph.rootGraph ?? app.graph))
    api.dispatchCustomEvent('executed', { node: String(node.id), display_node: String(node.id), output: { images: [] } });
  node.setDirtyCanvas?.(true, true);
}

const isOurs = (element) => {
  const id = element?.closest('[data-node-id]')?.dataset.nodeId;
  return id !== undefined && app.canvas?.graph?.getNodeById(id)?.comfyClass === NODE;
};

app.registerExtension({
  name: 'OmniAlpha.LoadLayers',
  init() {
    // Vue nodes have a file field of their own, which uploads whatever it is given.
    document.addEventListener('click', ({ target }) => {
      if (target instanceof HTMLInputElement && target.type === 'file' && isOurs(target)) target.accept = ACCEPT;
    }, { capture: true });
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE || !node.pasteFiles) return;
    const button = node.widgets?.find((widget) => widget.name === 'upload');
    if (button) button.callback = chooser(node);
    const file = node.widgets?.find((widget) => widget.name === 'file');
    const chosen = file?.callback;
    if (file) file.callback = function (...given) {
      node.hideOutputImages = isLayered(file.value);
      const result = chosen?.apply(this, given); // shows the file
      if (isLayered(file.value)) showNoPicture(node);
      return result;
    };
    // The frontend shows a new or opened node's file a frame later.
    requestAnimationFrame(() => {
      node.hideOutputImages = Boolean(file) && isLayered(file.value);
      if (node.hideOutputImages) requestAnimationFrame(() => showNoPicture(node));
    });
    const drop = node.onDragDrop;
    node.onDragDrop = function (event, ...more) {
      const files = [...(event?.dataTransfer?.files ?? [])];
      const layered = files.filter((file) => isLayered(file.name));
      const ours = layered.length ? layered : files.filter((file) => isMarkup(file.name));
      if (!ours.length) return drop?.call(this, event, ...more);
      upload(node, ours);
      return true; // taken: the frontend need not look for a workflow in it
    };
  },
});
