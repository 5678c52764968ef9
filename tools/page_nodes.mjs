// What load_workflows.mjs does with nodes rather than with workflows. Its jobs:
//
//   {"search": words}                   type them into the node search, take the first -> {"listed", "added": titles}
//   {"node": type, "screenshot": path}  one node alone, as a picture
//   {"node": type, "choose": [task]}    what a task node shows for each choice -> {"shown": [...], "title"}
//   {..., "language": code}             first change the frontend's language

import { untilUp } from './open_frontend.mjs';

/** Do one of the jobs above. */
export async function nodeJob(page, { search, node, screenshot, choose, language }) {
  if (language) {
    await page.evaluate((code) => window.app.ui.settings.setSettingValueAsync('Comfy.Locale', code), language);
    await page.reload({ waitUntil: 'domcontentloaded' });
    await untilUp(page);
  }
  if (search) return searchFor(page, search);
  if (choose) return page.evaluate(chooseInPage, { type: node, choose });
  await page.screenshot({ path: screenshot, clip: await page.evaluate(nodeInPage, node) });
  return {};
}

/** Types into the node search, takes what it finds first, and says which node that put on the empty canvas. */
async function searchFor(page, words) {
  await page.evaluate(() => window.app.graph.clear());
  await page.mouse.dblclick(800, 500);
  await page.waitForTimeout(800);
  await page.keyboard.type(words, { delay: 20 });
  await page.waitForTimeout(1500);
  const listed = await page.locator('[role=option]').allTextContents();
  await page.keyboard.press('Enter');
  await page.waitForTimeout(1000);
  const added = await page.evaluate(() => window.app.graph._nodes.map((node) => node.title));
  return { problems: [], listed, added };
}

/** Runs in the page: one node alone on the canvas; where in the window it is. */
async function nodeInPage(type) {
  const { app, LiteGraph } = window;
  app.graph.clear();
  app.nodeOutputs = {}; // the next node takes the last one's number, and would show its pictures
  const node = LiteGraph.createNode(type);
  node.pos = [200, 150];
  app.graph.add(node);
  node.setSize([Math.max(node.size[0], 340), node.size[1]]);
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [0, 0];
  app.canvas.setDirty(true, true);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const [x, y, width, height] = node.boundingRect ?? node.getBounding();
  return { x: x - 12, y: y - 28, width: width + 24, height: height + 40 };
}

/** Runs in the page: change a node's task, then give a socket a name of one's own and change it again. */
async function chooseInPage({ type, choose }) {
  const { app, LiteGraph } = window;
  app.graph.clear();
  const node = LiteGraph.createNode(type);
  app.graph.add(node);
  const widget = (name) => node.widgets.find((one) => one.name === name);
  const show = (task) => {
    widget('task').value = task;
    widget('task').callback?.(task);
    const sockets = node.inputs.filter((input) => !input.widget);
    return {
      sockets: Object.fromEntries(sockets.map((one) => [one.name, one.label || one.localized_name || one.name])),
      text: widget('text').inputEl?.placeholder, instruction: widget('instruction').inputEl?.placeholder,
      tooltip: widget('task').tooltip,
      greyedOut: node.widgets.filter((one) => one.disabled).map((one) => [one.name, one.tooltip]),
    };
  };
  const shown = choose.map(show);
  node.inputs.find((input) => input.name === 'guide').label = 'mine';
  return { title: node.title, shown, renamed: show(choose[0]).sockets.guide };
}
