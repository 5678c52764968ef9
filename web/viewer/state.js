// How layers are looked at. Index 0 is the rearmost layer, as in the batch the node gets.

/** Backgrounds that have a name; any other is a colour of the artist's own, as #rrggbb. */
export const BACKGROUNDS = { checkerboard: null, white: '#ffffff', black: '#000000' };

const OPEN = { shown: [], opacity: [], solo: null, background: 'checkerboard' };

/** What was looked at last, if there are as many layers as then; else every layer, on the same background. */
export function carryOver(last, count) {
  if (last?.shown.length === count) return last;
  const every = { shown: Array(count).fill(true), opacity: Array(count).fill(1), solo: null };
  return { ...OPEN, ...last, ...every };
}

/** How opaque a layer is drawn, 0 to 1. One that is alone is drawn even where it is hidden among the others. */
export function opacityOf(state, index) {
  const drawn = state.solo === null ? state.shown[index] : state.solo === index;
  return drawn ? state.opacity[index] : 0;
}

/** `list` with one entry changed. */
export const withEntry = (list, index, value) => list.map((old, at) => (at === index ? value : old));

/** Holds the state and tells all who look at it: the node, and the large view while that is open. */
export function createStore() {
  let state = { ...OPEN, layers: [], note: '' };
  const listeners = new Set();
  return {
    get state() {
      return state;
    },
    set(changes) {
      state = { ...state, ...changes };
      for (const listener of listeners) listener(state);
    },
    /** Call `listener` now and after every change; returns what ends that. */
    subscribe(listener) {
      listeners.add(listener);
      listener(state);
      return () => listeners.delete(listener);
    },
  };
}

// Undo, redo and changing between tabs make nodes anew. What an artist looks at outlives that, for as long as the page
// is open; the workflow knows nothing of it, so looking never counts as a change.
const remembered = new Map();
export const recall = (key) => remembered.get(key);
export const remember = (key, { shown, opacity, solo, background }) =>
  remembered.set(key, { shown, opacity, solo, background });
