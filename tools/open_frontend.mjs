// Starts Chromium and opens the real ComfyUI frontend in it. playwright-core comes from node_modules beside this file or
// from NODE_PATH.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url); // unlike import, require honours NODE_PATH
const { chromium } = require('playwright-core');

const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

export const launch = (executablePath) => chromium.launch({ executablePath, args: FLAGS });

/** A page with the frontend up and its nodes registered, free of first-start dialogs. */
export async function openFrontend(browser, url, more = {}) {
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
  const settings = { 'Comfy.TutorialCompleted': true, 'Comfy.Workflow.ShowMissingNodesWarning': true,
    'Comfy.Workflow.ShowMissingModelsWarning': false, 'Comfy.Graph.CanvasMenu': false, 'Comfy.Graph.CanvasInfo': false, 'Comfy.Minimap.Visible': false,
    'LiteGraph.Canvas.MinFontSizeForLOD': 0 /* text stays, however small */, ...more };
  await page.request.post(`${url}/settings`, { data: settings });
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  await untilUp(page);
  return page;
}

/** Wait until the frontend runs and knows its nodes. */
export function untilUp(page) {
  return page.waitForFunction(
    () => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 50,
    null, { timeout: 300_000 });
}
