// Uses the layer viewer as an artist would, on classic and on Vue nodes, and says what it showed.
//
// Reads from stdin   {"url", "chromium", "folder": for screenshots, "prompt": API graph that previews layers,
//                     "again": [node id, input, value] that gives other pictures}
// writes to stdout   {"classic": facts, "vue": facts}; screenshots are MODE-NAME.png in the folder.
//
// frontend.py is the caller.
import fs from 'node:fs';
import { launch, openFrontend } from './open_frontend.mjs';

const VIEWER = '.omnialpha-viewer';
const ZOOM = '.omnialpha-zoom';
const MODES = { classic: false, vue: true };

/** Runs in the page: open a graph in API format, as a workflow that has the previewing node where it can be seen. */
async function openInPage(prompt) {
  const { app } = window;
  window.settle = (milliseconds = 1500) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  window.previewing = () => app.graph._nodes.find((one) => one.type === 'OmniAlphaPreviewLayers');
  window.elementOf = (node) => document.querySelector(`[data-node-id="${node.id}"]`); // of Vue nodes
  await app.loadApiJson(prompt, 'layers.json');
  await window.settle();
  const workflow = app.graph.serialize();
  for (const [index, node] of workflow.nodes.entries()) node.pos = [1800, 60 * index];
  Object.assign(workflow.nodes.find((one) => one.type === 'OmniAlphaPreviewLayers'), { pos: [120, 120], size: [340, 480] });
  workflow.extra = { ...workflow.extra, ds: { scale: 1, offset: [0, 0] } };
  await app.loadGraphData(workflow);
  await window.settle();
}

/** Runs in the page: the size an artist gives a new node without asking for one. */
async function addInPage() {
  const { app, LiteGraph } = window;
  const node = LiteGraph.createNode('OmniAlphaPreviewLayers');
  node.pos = [900, 120];
  app.graph.add(node);
  await window.settle();
  const box = window.elementOf(node)?.getBoundingClientRect();
  const size = box ? [box.width, box.height] : [...node.size];
  app.graph.remove(node);
  return size.map(Math.round);
}

/** Runs in the page: where the lower right corner of the previewing node is. */
function cornerInPage() {
  const node = window.previewing();
  const box = window.elementOf(node)?.getBoundingClientRect();
  return box ? [box.right, box.bottom] : [node.pos[0] + node.size[0], node.pos[1] + node.size[1]];
}

/** Runs in the page: run the graph and wait until other pictures are shown; how few were ever there meanwhile. */
async function runInPage() {
  const { app } = window;
  const pictures = () => [...document.querySelectorAll('.omnialpha-viewer img')];
  const before = pictures()[0]?.src;
  const failed = new Promise((_, reject) => app.api.addEventListener('execution_error',
    (event) => reject(new Error(event.detail.exception_message)), { once: true }));
  await app.queuePrompt(0, 1);
  let fewest = Infinity;
  const shown = (async () => {
    for (const end = Date.now() + 240_000; Date.now() < end; await new Promise(requestAnimationFrame)) {
      if (before) fewest = Math.min(fewest, pictures().filter((one) => one.complete && one.naturalWidth).length);
      if (pictures().length && pictures()[0].src !== before) return before ? fewest : null;
    }
    throw new Error('the viewer showed nothing new within 240 s');
  })();
  return Promise.race([shown, failed]);
}

/** Runs in the page: what the frontend shows beside the viewer, and what it saves of the node. */
async function keptInPage() {
  const node = window.previewing();
  const saved = window.app.graph.serialize().nodes.find((one) => one.type === node.type);
  const { output } = await window.app.graphToPrompt();
  return {
    values: saved.widgets_values, inputs: output[node.id].inputs, properties: saved.properties,
    widgets: node.widgets.map((one) => one.name),
    others: [...(window.elementOf(node)?.querySelectorAll('img') ?? [])]
      .filter((image) => !image.closest('.omnialpha-viewer') && image.checkVisibility()).length,
  };
}

/** The rows as they are read, front layer first. */
const rowsOf = (page, place) => page.locator(`${place} li`).evaluateAll((rows) => rows.map((row) => ({
  name: row.querySelector('.omnialpha-name').textContent,
  shown: row.querySelector('button').getAttribute('aria-pressed') === 'true',
  solo: row.querySelectorAll('button')[1].getAttribute('aria-pressed') === 'true',
  opacity: Number(row.querySelector('input').value), said: row.querySelector('output').value,
})));

async function useViewer(page, mode, { folder, prompt, again }) {
  const facts = {};
  const row = (layer, place = VIEWER) => page.locator(`${place} li[data-layer="${layer}"]`);
  const opacity = (layer, value) => row(layer).locator('input').fill(String(value));
  const boxes = async () => Object.fromEntries(await Promise.all(['viewer', 'stage', 'picture', 'tools'].map(
    async (name) => [name, await page.locator(`.omnialpha-${name}`).first().boundingBox()])));
  const whole = (name) => page.screenshot({ path: `${folder}/${mode}-${name}.png` });
  async function shoot(name, place = VIEWER) {
    await page.mouse.move(5, 5);
    await page.waitForTimeout(150);
    await page.locator(`${place} .omnialpha-picture`).screenshot({ path: `${folder}/${mode}-${name}.png` });
  }

  await page.evaluate(openInPage, prompt);
  facts.fresh = await page.evaluate(addInPage);
  facts.note = await page.locator('.omnialpha-note').textContent();
  await page.evaluate(runInPage);
  await page.waitForTimeout(1500); // what the frontend itself would show has had its time
  facts.rows = await rowsOf(page, VIEWER);
  facts.boxes = await boxes();
  facts.kept = await page.evaluate(keptInPage);
  await whole('node');
  await shoot('all');

  const background = (label) => page.locator(`${VIEWER} .omnialpha-bar [aria-label="${label}"]`);
  await row(0).locator('button').first().click();
  await shoot('checkerboard');
  await background('White').click();
  await shoot('white');
  await page.locator(`${VIEWER} input[type=color]`).fill('#00ff00');
  await shoot('green');
  await background('Black').click();
  await row(2).locator('button').first().click();
  await shoot('middle');
  await row(0).locator('button').nth(1).click();
  await shoot('solo');
  await row(0).locator('button').nth(1).click();
  await opacity(1, 0.5);
  await shoot('half');
  facts.changed = await rowsOf(page, VIEWER);

  // By keys alone, in the large view as well, where the same is seen.
  await page.locator('.omnialpha-stage').focus();
  await page.keyboard.press('Enter');
  await page.waitForTimeout(300);
  facts.focus = await page.evaluate(() => document.activeElement.className);
  facts.zoomRows = await rowsOf(page, ZOOM);
  await shoot('zoom', ZOOM);
  const scale = async () => (await page.locator(`${ZOOM} .omnialpha-bar output`).textContent());
  const place = async () => page.locator(`${ZOOM} .omnialpha-picture`).boundingBox();
  facts.fitted = await place();
  await page.locator(`${ZOOM} .omnialpha-pane`).focus();
  await page.keyboard.press('1');
  facts.scales = [await scale()];
  const actual = await place();
  await page.mouse.move(actual.x + 10, actual.y + 10);
  await page.mouse.wheel(0, -500);
  await page.waitForTimeout(200);
  facts.scales.push(await scale());
  const wheeled = await place();
  facts.stays = [wheeled.x + (10 * wheeled.width) / actual.width - actual.x, wheeled.y + (10 * wheeled.height) / actual.height - actual.y];
  await page.mouse.down();
  await page.mouse.move(actual.x + 60, actual.y + 40, { steps: 3 });
  await page.mouse.up();
  const dragged = await place();
  facts.dragged = [dragged.x - wheeled.x, dragged.y - wheeled.y];
  await row(2, ZOOM).locator('button').first().focus();
  await page.keyboard.press('Space');
  await whole('large');
  await page.keyboard.press('Escape');
  await page.waitForTimeout(200);
  facts.open = await page.locator(ZOOM).count();
  facts.afterZoom = await rowsOf(page, VIEWER);

  // Another run, another size of the node, undo: the artist goes on looking at the same.
  await page.evaluate(([id, input, value]) => {
    const node = window.app.graph.getNodeById(id);
    node.widgets.find((one) => one.name === input).value = value;
  }, again);
  facts.fewest = await page.evaluate(runInPage);
  facts.afterRun = await rowsOf(page, VIEWER);
  await shoot('again');
  const [right, bottom] = await page.evaluate(cornerInPage);
  await page.mouse.move(right - 4, bottom - 4);
  await page.mouse.down();
  await page.mouse.move(right + 196, bottom + 96, { steps: 4 });
  await page.mouse.up();
  await page.waitForTimeout(800);
  facts.larger = await boxes();
  await whole('larger');
  for (const palette of ['light', 'dark']) {
    await page.evaluate((id) => window.app.ui.settings.setSettingValueAsync('Comfy.ColorPalette', id), palette);
    await page.waitForTimeout(800);
    if (palette === 'light') await whole('light');
  }
  await page.evaluate(async () => {
    await window.app.loadGraphData(window.app.graph.serialize(), false); // what undo does
    await window.settle();
  });
  facts.afterUndo = await rowsOf(page, VIEWER);
  await page.evaluate(async () => {
    const { app } = window;
    const results = { ...app.nodeOutputs };
    await app.loadGraphData(app.graph.serialize()); // what coming back to a tab does
    app.nodeOutputs = results;
    await window.settle();
  });
  facts.afterTab = await rowsOf(page, VIEWER);

  // Results as a server could give them: many layers, then pictures that are gone.
  facts.many = await page.evaluate(async () => {
    const node = window.previewing();
    const images = Object.values(window.app.nodeOutputs).find((one) => one.omnialpha_names).images;
    const before = node.size[1];
    const names = Array.from({ length: 30 }, (_, index) => `layer with quite a long name <b>${index}</b>`);
    node.onExecuted({ images: names.map((_, index) => images[index % images.length]), omnialpha_names: names });
    await window.settle();
    const list = document.querySelector('.omnialpha-layers');
    return {
      rows: list.children.length, scrolls: list.scrollHeight > list.clientHeight, grown: node.size[1] - before,
      markup: list.querySelectorAll('b').length,
    };
  });
  await whole('many');
  facts.gone = await page.evaluate(async () => {
    window.previewing().onExecuted({ images: [{ filename: 'gone.png', subfolder: '', type: 'temp' }] });
    await window.settle();
    return document.querySelector('.omnialpha-note').textContent;
  });

  await page.evaluate(async () => {
    const { app } = window;
    app.canvas.setGraph(app.graph.convertToSubgraph(new Set([window.previewing()])).subgraph);
    await window.settle();
  });
  await page.evaluate(runInPage);
  facts.inSubgraph = await rowsOf(page, VIEWER);
  await whole('subgraph');
  return facts;
}

const { url, chromium, ...order } = JSON.parse(fs.readFileSync(0, 'utf8'));
const browser = await launch(chromium);
try {
  const results = {};
  for (const [mode, vue] of Object.entries(MODES)) {
    const page = await openFrontend(browser, url, { 'Comfy.VueNodes.Enabled': vue });
    const problems = [];
    page.on('pageerror', (error) => problems.push(String(error).slice(0, 300)));
    await page.evaluate(() => window.app.extensionManager.command.execute('Workspace.ToggleFocusMode'));
    try {
      results[mode] = { ...(await useViewer(page, mode, order)), problems };
    } catch (error) {
      await page.screenshot({ path: `${order.folder}/${mode}-failed.png` });
      throw error;
    }
    results[mode].isVue = await page.evaluate(() => Boolean(window.LiteGraph.vueNodesMode));
    await page.close();
  }
  process.stdout.write(JSON.stringify(results));
} finally {
  await browser.close();
}
