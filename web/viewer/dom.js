// One way to make elements.

/** An element. `on…` properties listen, `style` and `dataset` are merged, all others are attributes; null is left out. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'style' || name === 'dataset') Object.assign(element[name], value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children); // text stays text: names come from the graph, and are never read as HTML
  return element;
}

/** A button that shows an icon of PrimeIcons, which the frontend brings, and says the rest in words. */
export function iconButton(icon, label, onclick) {
  const face = icon.startsWith('pi-') ? make('i', { class: `pi ${icon}`, 'aria-hidden': 'true' }) : icon;
  return make('button', { type: 'button', title: label, 'aria-label': label, onclick }, face);
}

/** Bring the style sheet into the page, once. */
export function loadStyle() {
  const href = new URL('./viewer.css', import.meta.url).href;
  if (!document.querySelector(`link[href="${href}"]`)) document.head.append(make('link', { rel: 'stylesheet', href }));
}
