// What the viewer says. A language replaces these by "omnialpha": {"viewer": {…}} of locales/<language>/main.json.
import { app } from '../../../scripts/app.js';
import { api } from '../../../scripts/api.js';

export const words = {
  empty: 'Run the graph to see its layers.',
  gone: 'The pictures are gone from the server. Run the graph again.',
  enlarge: 'Enlarge the picture',
  layers: 'Layers, front to back',
  hide: 'Hide {name}',
  show: 'Show {name}',
  solo: 'Show {name} alone',
  opacity: 'Opacity of {name}',
  all: 'Show all layers, fully opaque',
  background: 'Background',
  checkerboard: 'Checkerboard',
  white: 'White',
  black: 'Black',
  colour: 'A colour of your own',
  view: 'Layers at large. Drag or use the arrow keys to move, the wheel or + and - to zoom.',
  fit: 'Fit into the window',
  actual: 'Actual size',
  closer: 'Closer',
  farther: 'Farther',
  close: 'Close',
};

export const say = (key, name) => words[key].replace('{name}', () => name);

/** Take the words of the frontend's language, where a locale file has them. */
export async function loadWords() {
  const language = app.ui.settings.getSettingValue('Comfy.Locale') ?? 'en';
  const all = await (await api.fetchApi('/i18n')).json();
  Object.assign(words, all[language]?.omnialpha?.viewer);
}
