// The layers over each other on their background. The browser composites them: PNG files hold straight alpha, and CSS
// opacity multiplies it, which is how layers combine.
import { make } from './dom.js';
import { BACKGROUNDS, opacityOf } from './state.js';

/** Fetch and decode all layers before any of them is shown, so that a new run replaces the old one in one go. */
export async function loadLayers(urls, names) {
  const images = urls.map((url) => Object.assign(new Image(), { src: url }));
  await Promise.all(images.map((image) => image.decode()));
  return images.map((image, index) => ({
    name: names[index] ?? `${index}`, url: image.src, width: image.naturalWidth, height: image.naturalHeight,
    image, // keeps it decoded
  }));
}

/** An element that always shows what the store holds, its box as wide and high as CSS makes it; `stop` ends that. */
export function createPicture(store) {
  const element = make('div', { class: 'omnialpha-picture' });
  let shown = null;
  const stop = store.subscribe((state) => {
    if (state.layers !== shown) {
      shown = state.layers;
      element.replaceChildren(...shown.map(imageOf));
      element.style.setProperty('--ratio', shown.length ? shown[0].width / shown[0].height : 1);
    }
    const colour = BACKGROUNDS[state.background] ?? (state.background in BACKGROUNDS ? '' : state.background);
    element.classList.toggle('omnialpha-checkerboard', !colour);
    element.style.backgroundColor = colour;
    shown.forEach((_, index) => (element.children[index].style.opacity = opacityOf(state, index)));
  });
  return { element, stop };
}

const imageOf = ({ url, name }) => make('img', { src: url, alt: name, decoding: 'sync', draggable: 'false' });
