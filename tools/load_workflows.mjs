// Loads UI workflows in the real ComfyUI frontend, looks for damage and converts them to API format.
//
// Reads from stdin   {"url", "chromium", "jobs": [{"workflow": path, "run"?: true, "screenshot"?: path,
//                     "reload"?: true, "subgraph"?: true, "offers"?: true}]}
//               or a job of page_nodes.mjs
// writes to stdout   [{"problems": [text], "output": graph in API format, "workflow": it saved again,
//                     "reloaded"?, "subgraph"?: graph in API format after that,
//                     "offers"?: what is said of missing model files}], one per job.
//
// frontend.py is the caller.
import fs from 'node:fs';
import { launch, openFrontend } from './open_frontend.mjs';
import { nodeJob } from './page_nodes.mjs';

/** Runs in the page: load one workflow and say what the frontend made of it. */
async function loadInPage(source) {
  const { app, LiteGraph } = window;
  const problems = [];
  await app.loadGraphData(structuredClone(source), true, true);
  await new Promise((resolve) => setTimeout(resolve, 800)); // widgets and previews settle

  const name = (node) => `node ${node.id} (${node.type})`;
  for (const node of app.graph._nodes) {
    if (!(node.type in LiteGraph.registered_node_types)) problems.push(`${name(node)}: no such node`);
    if (node.has_errors) problems.push(`${name(node)}: drawn as an error`);
    for (const widget of node.widgets ?? []) {
      const values = typeof widget.options?.values === 'function' ? widget.options.values(widget, node) : widget.options?.values;
      if (Array.isArray(values) && values.length && !values.includes(widget.value))
        problems.push(`${name(node)}: ${widget.name} has ${JSON.stringify(widget.value)}, not one of its choices`);
    }
  }

  const saved = app.graph.serialize();
  // By the input's name: growing inputs change places with the widgets' on the way.
  const input = (graph, id, slot) => graph.nodes.find((node) => node.id === id)?.inputs?.[slot]?.name ?? slot;
  const links = (graph) => new Set(graph.links.map(
    ([, from, out, to, slot]) => JSON.stringify([from, out, to, input(graph, to, slot)]),
  ));
  const before = links(source), after = links(saved);
  for (const link of before) if (!after.has(link)) problems.push(`link ${link} (from, slot, to, input) was lost`);
  for (const link of after) if (!before.has(link)) problems.push(`link ${link} (from, slot, to, input) appeared`);
  const found = new Map(saved.nodes.map((node) => [node.id, node]));
  for (const node of source.nodes) {
    const now = found.get(node.id);
    if (!now) problems.push(`${name(node)} was lost`);
    else if (JSON.stringify(node.widgets_values ?? []) !== JSON.stringify(now.widgets_values ?? []))
      problems.push(`${name(node)}: values ${JSON.stringify(node.widgets_values)} became ${JSON.stringify(now.widgets_values)}`);
  }
  for (const dialog of document.querySelectorAll('.p-dialog')) problems.push(`dialog: ${dialog.textContent.slice(0, 200)}`);

  return { problems, output: (await app.graphToPrompt()).output, workflow: saved };
}

/** Runs in the page: open a workflow whose model files are missing; the text of what offers them. */
async function offersInPage(source) {
  await window.app.ui.settings.setSettingValueAsync('Comfy.Workflow.ShowMissingModelsWarning', true);
  await window.app.loadGraphData(structuredClone(source), true, true);
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  // A dialog that comes up by itself, or, in newer frontends, a panel that is a click away.
  const shown = () => document.querySelector('.comfy-missing-models, [data-testid="error-group-missing-model"]');
  for (let left = 60; !shown() && left; left--) {
    document.querySelector('[data-testid="error-overlay-see-errors"]')?.click();
    await pause(250);
  }
  await pause(1500); // its rows follow
  await window.app.ui.settings.setSettingValueAsync('Comfy.Workflow.ShowMissingModelsWarning', false);
  return shown()?.textContent ?? '';
}

/** Runs in the page: save the graph and open what was saved; the graph in API format. */
async function reloadInPage() {
  await window.app.loadGraphData(JSON.parse(JSON.stringify(window.app.graph.serialize())), true, true);
  await new Promise((resolve) => setTimeout(resolve, 500));
  return (await window.app.graphToPrompt()).output;
}

/** Runs in the page: put all nodes but the notes into one subgraph. */
function wrapInPage() {
  const { app } = window;
  app.graph.convertToSubgraph(new Set(app.graph._nodes.filter((node) => !/Note$/.test(node.type))));
}

/** Runs in the page: press Run, wait for the end, and let the results appear; what went wrong, or null. */
async function runInPage(seconds) {
  const { app } = window;
  const ended = new Promise((resolve) => {
    app.api.addEventListener('execution_success', () => resolve(null), { once: true });
    app.api.addEventListener('execution_error', (event) => resolve(event.detail.exception_message), { once: true });
    setTimeout(() => resolve(document.querySelector('.p-dialog')?.textContent ?? 'no end'), seconds * 1000);
  });
  await app.queuePrompt(0, 1);
  const error = await ended;
  await new Promise((resolve) => setTimeout(resolve, 1500)); // result pictures load
  return error;
}

/** Runs in the page: show the whole graph, and say where in the window it then is. */
function fitView() {
  const { app } = window;
  const boxes = [...app.graph._nodes, ...app.graph._groups].map((item) => item.boundingRect ?? item._bounding);
  const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]));
  const right = Math.max(...boxes.map((b) => b[0] + b[2])), bottom = Math.max(...boxes.map((b) => b[1] + b[3]));
  const { width, height } = app.canvas.canvas.getBoundingClientRect();
  const view = app.canvas.ds;
  const margin = 60; // keeps clear of the menu button
  view.scale = Math.min((width - 2 * margin) / (right - left), (height - 2 * margin) / (bottom - top));
  view.offset[0] = -left + (width / view.scale - (right - left)) / 2;
  view.offset[1] = -top + (height / view.scale - (bottom - top)) / 2;
  app.canvas.setDirty(true, true);
  const edge = margin / 3;
  return {
    x: (left + view.offset[0]) * view.scale - edge, y: (top + view.offset[1]) * view.scale - edge,
    width: (right - left) * view.scale + 2 * edge, height: (bottom - top) * view.scale + 2 * edge,
  };
}

const { url, chromium, jobs } = JSON.parse(fs.readFileSync(0, 'utf8'));
const browser = await launch(chromium);
try {
  const page = await openFrontend(browser, url);
  let errors = [];
  page.on('pageerror', (error) => errors.push(`script error: ${String(error).slice(0, 300)}`));
  page.on('console', (message) => {
    if (message.type() === 'error' && /OmniAlpha/i.test(message.text() + message.location().url))
      errors.push(`console: ${message.text().slice(0, 300)}`);
  });
  const results = [];
  if (jobs.some((job) => job.screenshot))
    await page.evaluate(() => window.app.extensionManager.command.execute('Workspace.ToggleFocusMode'));
  for (const job of jobs) {
    errors = [];
    const { workflow, run, screenshot, reload, subgraph, offers } = job;
    if (!workflow) {
      results.push({ ...(await nodeJob(page, job)), problems: errors });
      continue;
    }
    const source = JSON.parse(fs.readFileSync(workflow, 'utf8'));
    const result = await page.evaluate(loadInPage, source);
    if (run) {
      const error = await page.evaluate(runInPage, 120);
      if (error) errors.push(`did not run: ${error.slice(0, 300)}`);
    }
    if (screenshot) {
      const clip = await page.evaluate(fitView);
      await page.waitForTimeout(1500); // note and image elements follow the canvas
      await page.screenshot({ path: screenshot, clip });
    }
    if (offers) result.offers = await page.evaluate(offersInPage, source);
    if (reload) result.reloaded = await page.evaluate(reloadInPage);
    result.problems.push(...errors);
    if (subgraph) {
      // Newest frontends trip over their own growing sockets while they move a node into a subgraph, core's nodes
      // included. What counts is the graph that comes of it.
      await page.evaluate(wrapInPage);
      result.subgraph = await page.evaluate(reloadInPage);
    }
    results.push(result);
  }
  process.stdout.write(JSON.stringify(results));
} finally {
  await browser.close();
}
