// Uses nodes as an artist would, on classic and on Vue nodes, and says what could be seen.
//
// Reads from stdin   {"url", "chromium", "folder": for screenshots, "tasks": [id], "typed": an instruction of one's own,
//                     "untrained": API graph of a task its checkpoint does not know, "psd", "ora": paths,
//                     "preview": API graph that previews layers}
// writes to stdout   {"classic": facts, "vue": facts, "chinese": {"classic": facts, "vue": facts}}
//
// frontend.py is the caller.
import fs from 'node:fs';
import { launch, openFrontend } from './open_frontend.mjs';

const MODES = { classic: false, vue: true };

/** Runs in the page: one node alone, and ways to find what is drawn of it. */
async function aloneInPage(type) {
  const { app, LiteGraph } = window;
  window.settle = (milliseconds = 1500) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  window.widgetOf = (node, name) => node.widgets.find((one) => one.name === name);
  app.graph.clear();
  const node = LiteGraph.createNode(type);
  node.pos = [200, 160];
  app.graph.add(node);
  Object.assign(app.canvas.ds, { scale: 1 });
  app.canvas.ds.offset = [0, 0];
  app.canvas.setDirty(true, true);
  await window.settle();
  return String(node.id);
}

/** Runs in the page: choose a task; the names of the sockets and the grey texts in the fields, as they are drawn. */
async function chooseInPage(task) {
  const node = window.app.graph._nodes[0];
  const choice = window.widgetOf(node, 'task');
  choice.value = task;
  choice.callback?.(task);
  await window.settle(800);
  const element = document.querySelector(`[data-node-id="${node.id}"]`);
  if (!element) {
    return {
      sockets: node.inputs.filter((one) => !one.widget).map((one) => one.label || one.localized_name || one.name),
      hints: ['text', 'instruction'].map((name) => window.widgetOf(node, name).inputEl)
        .map((area) => (area.checkVisibility() ? area.placeholder : 'not to be seen')),
    };
  }
  return {
    sockets: [...element.querySelectorAll('.lg-slot--input')].map((row) => row.textContent.trim()).slice(0, 5),
    hints: [...element.querySelectorAll('textarea')].slice(0, 2).map((area) => (
      Number(getComputedStyle(area, '::placeholder').opacity) > 0.5 ? area.placeholder : 'not to be seen')),
  };
}

/** The field under the hint of a node's instruction, in either kind of node. */
const instructionOf = (page, vue) => page.locator(vue ? '[data-node-id] textarea' : 'textarea.comfy-multiline-input').nth(1);

async function useTask(page, vue, { folder, tasks, typed }, mode) {
  await page.evaluate(aloneInPage, 'OmniAlphaTask');
  const shown = {};
  for (const task of tasks) shown[task] = await page.evaluate(chooseInPage, task);
  await page.screenshot({ path: `${folder}/${mode}-task.png` });
  await instructionOf(page, vue).fill(typed);
  await page.waitForTimeout(500);
  const told = await page.evaluate(() => {
    const [node] = window.app.graph._nodes;
    return node.serialize().widgets_values[node.widgets.findIndex((one) => one.name === 'instruction')];
  });
  return { shown, told };
}

/** Runs in the page: run a graph that ends in the viewer, wait until that shows layers; what went wrong, or null. */
async function runInPage([graph, seconds]) {
  const { app } = window;
  await app.loadApiJson(graph, 'graph.json');
  await window.settle();
  const ended = new Promise((resolve) => {
    app.api.addEventListener('execution_success', () => resolve(null), { once: true });
    app.api.addEventListener('execution_error', ({ detail }) => resolve(detail.exception_message), { once: true });
    setTimeout(() => resolve('no end'), seconds * 1000);
  });
  await app.queuePrompt(0, 1);
  const error = await ended;
  const rows = () => document.querySelector('.omnialpha-viewer li');
  for (const end = Date.now() + 60_000; !error && !rows() && Date.now() < end;) await window.settle(200);
  await window.settle();
  return error;
}

/** Runs in the page: all texts that can be read on the nodes. */
const readInPage = () => [...document.querySelectorAll('.dom-widget, [data-node-id]')]
  .filter((one) => one.checkVisibility()).map((one) => one.textContent).join(' ');

/** The file dialog that a click opens. On a busy machine the browser may take a click after a script for the script's. */
async function chooserAfter(page, click) {
  for (let tries = 0; tries < 6; tries++) {
    await page.waitForTimeout(1000);
    const asked = page.waitForEvent('filechooser', { timeout: 5000 }).catch(() => null);
    await click();
    const chooser = await asked;
    if (chooser) return chooser;
  }
  throw new Error('no file dialog opened');
}

async function useLoader(page, vue, { folder, psd, ora }, mode) {
  const id = await page.evaluate(aloneInPage, 'OmniAlphaLoadLayers');
  const at = await page.evaluate(() => {
    const [node] = window.app.graph._nodes;
    return [node.pos[0] + node.size[0] / 2, node.pos[1] + window.widgetOf(node, 'upload').last_y + 10];
  });
  const chooser = await chooserAfter(page, () => (
    vue ? page.locator(`[data-node-id="${id}"] label:has(input[type=file])`).click() : page.mouse.click(...at)));
  const facts = { offered: await chooser.element().evaluate((input) => input.accept) };
  const state = () => page.evaluate(() => {
    const [node] = window.app.graph._nodes;
    const pictures = [...document.querySelectorAll('[data-node-id] img')].filter((one) => one.checkVisibility());
    return { file: window.widgetOf(node, 'file').value, pictures: pictures.length + (node.imgs?.length ?? 0) };
  });
  await chooser.setFiles(psd);
  await page.waitForTimeout(2500);
  facts.chosen = await state();
  facts.said = await page.evaluate(readInPage);
  await page.mouse.move(5, 500);
  await page.screenshot({ path: `${folder}/${mode}-loader.png` });
  const data = await page.evaluateHandle((bytes) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(bytes)], 'dropped.ora')); // browsers know no type for it
    return transfer;
  }, [...fs.readFileSync(ora)]);
  for (const type of ['dragenter', 'dragover', 'drop']) {
    await page.evaluate(([place, name, dataTransfer]) => document.querySelector(place).dispatchEvent(
      new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true, clientX: 260, clientY: 185 })),
    [vue ? `[data-node-id="${id}"]` : '#graph-canvas', type, data]);
  }
  await page.waitForTimeout(2500);
  facts.dropped = await state();
  return facts;
}

/** Names and tooltips of all buttons of the viewer, and the title of its node, in the language that is set. */
async function readViewer(page, vue, { folder, preview }, mode) {
  await page.evaluate(() => { window.settle = (time = 1500) => new Promise((resolve) => setTimeout(resolve, time)); });
  const before = await page.evaluate(async (graph) => {
    await window.app.loadApiJson(graph, 'graph.json');
    await window.settle();
    return [...document.querySelectorAll('.omnialpha-note')].map((one) => one.textContent);
  }, preview);
  const error = await page.evaluate(runInPage, [preview, 120]);
  const spoken = await page.locator('.omnialpha-viewer [aria-label]').evaluateAll(
    (all) => [...new Set(all.map((one) => one.getAttribute('aria-label')))]);
  const titles = await page.evaluate(() => window.app.graph._nodes.map((node) => node.title));
  const headers = await page.locator('[data-node-id]').allTextContents();
  await page.screenshot({ path: `${folder}/${mode}-chinese.png` });
  return { error, before, spoken, titles, headers };
}

const { url, chromium, ...order } = JSON.parse(fs.readFileSync(0, 'utf8'));
const browser = await launch(chromium);
const results = { chinese: {} };
async function inBothModes(settings, use) {
  for (const [mode, vue] of Object.entries(MODES)) {
    const page = await openFrontend(browser, url, { 'Comfy.VueNodes.Enabled': vue, ...settings });
    const problems = [];
    page.on('pageerror', (error) => problems.push(String(error).slice(0, 300)));
    try {
      await use(page, vue, mode, problems);
    } catch (error) {
      await page.screenshot({ path: `${order.folder}/${mode}-failed.png` });
      throw error;
    }
    await page.close();
  }
}
try {
  await inBothModes({ 'Comfy.Locale': 'en' }, async (page, vue, mode, problems) => {
    const loader = await useLoader(page, vue, order, mode);
    const task = await useTask(page, vue, order, mode);
    order.untrained['2'].inputs.seed += 1; // ComfyUI does not run again what it has run, and says nothing
    await page.evaluate(() => { // messages at the side go away by themselves
      window.read = '';
      setInterval(() => {
        for (const one of document.querySelectorAll('.p-toast, [role=alert]')) if (one.checkVisibility()) window.read += one.textContent;
      }, 200);
    });
    const failed = await page.evaluate(runInPage, [order.untrained, 240]);
    const note = await page.evaluate(() => window.read) + await page.evaluate(readInPage);
    await page.screenshot({ path: `${order.folder}/${mode}-untrained.png` });
    results[mode] = { task, loader, failed, note, problems };
    results[mode].isVue = await page.evaluate(() => Boolean(window.LiteGraph.vueNodesMode));
  });
  await inBothModes({ 'Comfy.Locale': 'zh' }, async (page, vue, mode) => {
    results.chinese[mode] = await readViewer(page, vue, order, mode);
  });
  process.stdout.write(JSON.stringify(results));
} finally {
  await browser.close();
}
