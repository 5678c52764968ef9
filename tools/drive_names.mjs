// Runs graphs whose names, captions and settings are HTML with a script in it, on classic and on Vue nodes, and says
// whether that ran and what could be read.
//
// Reads from stdin   {"url", "chromium", "folder": for screenshots, "graphs": {name: API graph}, "list": type of a node,
//                     "listed": name of its input with a list of files, "dropped": name of a file to drop on it}
// writes to stdout   {"classic": facts, "vue": facts}; facts: {name: {"end", "ran", "labels": of the viewer, "said":
//                     notes}, "list": {"entries", "chosen", "ran"}}
//
// A script in a name calls ran(). frontend.py is the caller.
import fs from 'node:fs';
import { launch, openFrontend } from './open_frontend.mjs';

const MODES = { classic: false, vue: true };

/** Runs in the page: run a graph to its end, or to a refusal, and give the page time to show what came of it. */
async function runInPage([graph, seconds]) {
  const { app } = window;
  const settle = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  window.scripts = 0;
  window.said = [];
  let refused = false;
  const ended = new Promise((resolve) => {
    app.api.addEventListener('execution_success', () => resolve('success'), { once: true });
    app.api.addEventListener('execution_error', ({ detail }) => resolve(detail.exception_message), { once: true });
    setTimeout(() => resolve('no end'), seconds * 1000);
  });
  await app.loadApiJson(graph, 'graph.json');
  const workflow = app.graph.serialize();
  workflow.nodes.forEach((node, index) => { node.pos = [100 + 400 * index, 120]; });
  workflow.extra = { ...workflow.extra, ds: { scale: 1, offset: [0, 0] } };
  await app.loadGraphData(workflow);
  await settle(1500);
  const ask = app.api.queuePrompt.bind(app.api);
  app.api.queuePrompt = (...given) => ask(...given).catch((error) => {
    refused = true;
    throw error;
  });
  await app.queuePrompt(0, 1);
  app.api.queuePrompt = ask;
  const end = refused ? 'refused' : await ended;
  for (const late = Date.now() + 30_000; end === 'success' && Date.now() < late;) {
    if (document.querySelector('.omnialpha-name')) break;
    await settle(500);
  }
  await settle(1500);
  return end;
}

/** Runs in the page: one node alone, a file dropped on it; what the node calls that, and where its list of files is. */
async function listInPage([type, name, dropped]) {
  const { app, LiteGraph } = window;
  const settle = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  app.graph.clear();
  window.scripts = 0;
  const node = LiteGraph.createNode(type);
  node.pos = [200, 160];
  app.graph.add(node);
  Object.assign(app.canvas.ds, { scale: 1 });
  app.canvas.ds.offset = [0, 0];
  app.canvas.setDirty(true, true);
  await settle(1500);
  const widget = node.widgets.find((one) => one.name === name);
  const picture = await (await app.api.fetchApi(`/view?type=input&filename=${widget.options.values.at(-1)}`)).blob();
  node.onDragDrop({ dataTransfer: { files: [new File([picture], dropped, { type: 'image/png' })], items: [] } });
  await settle(2500);
  const place = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10];
  return { place, chosen: widget.value };
}

const { url, chromium, folder, graphs, list, listed, dropped } = JSON.parse(fs.readFileSync(0, 'utf8'));
const browser = await launch(chromium);
const results = {};
try {
  for (const [mode, vue] of Object.entries(MODES)) {
    const page = await openFrontend(browser, url, { 'Comfy.VueNodes.Enabled': vue, 'Comfy.Locale': 'en' });
    await page.evaluate(() => {
      window.ran = () => (window.scripts += 1);
      window.app.api.addEventListener('progress_text', ({ detail }) => window.said.push(detail.text));
    });
    const facts = {};
    for (const [name, graph] of Object.entries(graphs)) {
      const end = await page.evaluate(runInPage, [graph, 120]);
      const labels = await page.locator('.omnialpha-name').allTextContents();
      const [ran, said] = await page.evaluate(() => [window.scripts, window.said]);
      facts[name] = { end, labels, said, ran };
      await page.screenshot({ path: `${folder}/${mode}-${name}.png` });
      await page.keyboard.press('Escape');
      await page.waitForTimeout(500);
    }
    if (!vue) { // the lists of classic nodes are made of HTML
      const { place, chosen } = await page.evaluate(listInPage, [list, listed, dropped]);
      await page.mouse.click(...place);
      await page.waitForTimeout(1500);
      const entries = await page.locator('.litemenu-entry').allTextContents();
      facts.list = { entries, chosen, ran: await page.evaluate(() => window.scripts) };
      await page.screenshot({ path: `${folder}/${mode}-list.png` });
    }
    results[mode] = facts;
    await page.close();
  }
  process.stdout.write(JSON.stringify(results));
} finally {
  await browser.close();
}
