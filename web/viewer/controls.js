// What can be done with the layers: a row for each, front on top, and the background.
import { iconButton, make } from './dom.js';
import { BACKGROUNDS, withEntry } from './state.js';
import { say, words } from './words.js';

/** Elements that change the store and follow it; `stop` ends that. */
export function createControls(store) {
  const list = make('ul', { class: 'omnialpha-layers', 'aria-label': words.layers });
  const bar = backgroundBar(store);
  let rows = [];
  let names = null;
  const stop = store.subscribe((state) => {
    const found = JSON.stringify(state.layers.map((layer) => layer.name));
    if (found !== names) {
      // Only then: a run that ends while a slider is dragged leaves it in the hand.
      names = found;
      rows = state.layers.map((layer, index) => layerRow(store, layer.name, index));
      list.replaceChildren(...rows.map((row) => row.element).reverse());
    }
    for (const row of rows) row.update(state);
    bar.update(state);
  });
  return { elements: [bar.element, list], list, stop };
}

function layerRow(store, name, index) {
  const icon = make('i', { class: 'pi', 'aria-hidden': 'true' });
  const eye = make('button', {
    type: 'button', onclick: () => store.set({ shown: withEntry(store.state.shown, index, !store.state.shown[index]) }),
  }, icon);
  const solo = iconButton('S', say('solo', name), () =>
    store.set({ solo: store.state.solo === index ? null : index }));
  const slider = make('input', {
    type: 'range', min: '0', max: '1', step: '0.01', title: say('opacity', name), 'aria-label': say('opacity', name),
    oninput: () => store.set({ opacity: withEntry(store.state.opacity, index, Number(slider.value)) }),
  });
  const percent = make('output');
  const label = make('span', { class: 'omnialpha-name', title: name }, name);
  const element = make('li', { dataset: { layer: index } }, eye, solo, label, slider, percent);

  function update({ shown, solo: alone, opacity }) {
    const visible = alone === null ? shown[index] : alone === index;
    icon.className = `pi ${shown[index] ? 'pi-eye' : 'pi-eye-slash'}`;
    eye.title = say(shown[index] ? 'hide' : 'show', name);
    eye.setAttribute('aria-label', say('show', name));
    eye.setAttribute('aria-pressed', shown[index]);
    solo.setAttribute('aria-pressed', alone === index);
    slider.value = opacity[index];
    percent.value = `${Math.round(opacity[index] * 100)} %`;
    element.classList.toggle('omnialpha-unseen', !visible);
  }
  return { element, update };
}

function backgroundBar(store) {
  const choices = Object.keys(BACKGROUNDS).map((name) => [
    name,
    make('button', {
      type: 'button', role: 'radio', class: `omnialpha-swatch omnialpha-${name}`, title: words[name],
      'aria-label': words[name], style: { backgroundColor: BACKGROUNDS[name] ?? '' },
      onclick: () => store.set({ background: name }),
    }),
  ]);
  const own = make('input', {
    type: 'color', class: 'omnialpha-swatch', value: '#3070c0', title: words.colour, 'aria-label': words.colour,
    oninput: () => store.set({ background: own.value }),
    onclick: () => store.set({ background: own.value }), // the one it shows already is a choice as well
  });
  const size = make('span', { class: 'omnialpha-size' });
  const all = iconButton('pi-refresh', words.all, () => {
    const { layers } = store.state;
    store.set({ shown: layers.map(() => true), opacity: layers.map(() => 1), solo: null });
  });
  const group = make('span', { role: 'radiogroup', 'aria-label': words.background },
    ...choices.map(([, button]) => button), own);

  function update({ background, layers }) {
    for (const [name, button] of choices) button.setAttribute('aria-checked', background === name);
    const named = background in BACKGROUNDS;
    own.classList.toggle('omnialpha-chosen', !named);
    if (!named) own.value = background;
    size.textContent = layers.length ? `${layers[0].width} × ${layers[0].height}` : '';
  }
  return { element: make('div', { class: 'omnialpha-bar' }, group, size, all), update };
}
