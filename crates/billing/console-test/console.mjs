// Drives the console of a real billing service with headless Chromium: every page in light and dark, narrow and wide, with
// and without scripts; a login; a run of 20,000 invoices watched live to its end. Takes the pictures of the documentation.
// Knows the console by its pages only.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";

const BIN = resolve(process.env.CONSOLE_BIN ?? "../../../target/debug");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const IMAGES = resolve(process.env.CONSOLE_IMAGES ?? "../../../docs/how-to/images");
const INVOICES = Number(process.env.CONSOLE_INVOICES ?? 20_000);
const IMAGE_BYTES_MAX = 120_000;
// With charges, before today.
const DAYS = 12;
const DAY_MS = 86_400_000;
// An empty database: the one of the service whose pages are tested.
const DATABASE_URL = process.env.CONSOLE_DATABASE_URL ?? "sqlite:billing.db";
const RUN_MS_MAX = 240_000;
const READER = "reader-of-the-console-test";
const HOSTILE = `<img src=x onerror=alert(1)>&"'`;
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const folder = mkdtempSync(join(tmpdir(), "console-test-"));
const children = [];

const freePort = () =>
  new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

const until = async (what, check, ms = 20_000) => {
  for (const end = Date.now() + ms; Date.now() < end; await new Promise((next) => setTimeout(next, 50))) {
    if (await check().catch(() => false)) return;
  }
  throw new Error(`${what}: not within ${ms} ms`);
};

// Starts a service on ports of its own and waits until it is ready.
const start = async (name, { listen = "127.0.0.1", options = [] } = {}) => {
  const [port, admin] = [await freePort(), await freePort()];
  const options_ = ["--listen", `${listen}:${port}`, "--admin-listen", `127.0.0.1:${admin}`, ...options];
  const child = spawn(join(BIN, name), options_, { stdio: ["ignore", "ignore", "pipe"], cwd: folder });
  let log = "";
  child.stderr.on("data", (text) => (log = (log + text).slice(-4000)));
  children.push(child);
  const ready = async () => (await fetch(`http://127.0.0.1:${admin}/readyz`)).ok;
  await until(`${name} is ready`, ready).catch((error) => {
    throw new Error(`${error.message}\n${log}`);
  });
  return { child, base: `http://127.0.0.1:${port}` };
};

const post = async (base, path, body = "") => {
  const type = path.endsWith("/imports") ? "application/x-ndjson" : "application/json";
  const answer = await fetch(base + path, { method: "POST", body, headers: { "content-type": type } });
  assert.ok(answer.ok, `${path}: ${answer.status} ${answer.ok ? "" : await answer.text()}`);
  return answer.json();
};

// A page of Chromium that fails on each console error, exception and request to elsewhere.
const open = async (browser, base, options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("dialog", (dialog) => problems.push(`dialog: ${dialog.message()}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${base}/console`)) problems.push(`elsewhere: ${request.url()}`);
  });
  return { page, close: async () => (await context.close(), assert.deepEqual(problems, [])) };
};

const violations = [];
const audit = async (page, what) => {
  // By the debugger, which the page's own policy does not bind.
  const found = await page.evaluate(`(() => { ${axeSource}; return axe.run(document, { resultTypes: ["violations"] }); })()`);
  const text = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`);
  violations.push(...text.map((one) => `${what}: ${one}`));
};

// From the top of the page, or of one of its parts.
const picture = async (page, name, part = "body") => {
  mkdirSync(IMAGES, { recursive: true });
  const { y } = await page.locator(part).boundingBox();
  const bytes = await page.screenshot({ fullPage: true, clip: { x: 0, y, width: 1280, height: 680 } });
  assert.ok(bytes.length < IMAGE_BYTES_MAX, `${name}.png has ${bytes.length} bytes`);
  writeFileSync(join(IMAGES, `${name}.png`), bytes);
};

const everyPage = async (browser, base, pages) => {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [360, 1280]) {
      const { page, close } = await open(browser, base, { colorScheme, viewport: { width, height: 800 } });
      for (const path of pages) {
        const answer = await page.goto(base + path);
        assert.equal(answer.status(), 200, path);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `${path} is ${wide} px wider than ${width}`);
        await audit(page, `${path} ${colorScheme} ${width}`);
      }
      await close();
    }
  }
};

const withoutScripts = async (browser, base, pages) => {
  const { page, close } = await open(browser, base, { javaScriptEnabled: false });
  for (const path of pages) {
    assert.equal((await page.goto(base + path)).status(), 200, path);
    assert.equal(await page.locator("h1").count(), 1, path);
  }
  await page.goto(`${base}/console`);
  await page.getByLabel("Invoice reference").fill(HOSTILE);
  await page.getByRole("button", { name: "Find" }).click();
  assert.match(await page.locator("h1").innerText(), /<img src=x/);
  await page.goto(`${base}/console/runs`);
  await page.getByRole("link", { name: "Refresh" }).click();
  await close();
};

const login = async (browser) => {
  writeFileSync(join(folder, "readers"), `${READER}\n`);
  const { base } = await start("billing", {
    listen: "0.0.0.0",
    options: ["--database-url", "sqlite:login.db", "--reader-token-file", "readers",
      "--payment-provider-endpoint", "http://127.0.0.1:9"],
  });
  const { page, close } = await open(browser, base);
  await page.goto(`${base}/console`);
  assert.equal(new URL(page.url()).pathname, "/console/login");
  await audit(page, "the login");
  await page.getByLabel(/Token/).fill(READER);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${base}/console`);
  const [cookie] = await page.context().cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict" && !cookie.value.includes(READER));
  await page.getByRole("button", { name: "Log out" }).click();
  await page.waitForURL(`${base}/console/login`);
  await close();
};

// How far the clock of billing is ahead of this machine's, as its file says it.
const setClock = (aheadMs) => {
  const sign = aheadMs < 0 ? "-" : "+";
  const line = `${sign}${String(Math.abs(aheadMs)).padStart(19, "0")}\n`;
  writeFileSync(join(folder, "clock"), line + line);
};

// Charges invoices in two currencies on each of the days before today.
const chargeByDay = async (base) => {
  for (let day = DAYS; day >= 0; day -= 1) {
    setClock(-day * DAY_MS);
    if (day === 0) break;
    const lines = Array.from({ length: 5 + ((day * 7) % 11) }, (_, at) => JSON.stringify({
      reference: `D-${day}-${at}`, customer_id: at % 3 ? 1 : 901, currency: at % 3 ? "EUR" : "SEK", amount: `${day * 100 + at}.50`,
    }));
    await post(base, "/v1/imports", lines.join("\n"));
    const run = await post(base, "/v1/runs");
    await until(`the run of day ${day} ends`, async () => (await (await fetch(`${base}/v1/runs/${run.id}`)).json()).state === "finished");
  }
};

const watchRun = async (browser, base) => {
  const lines = Array.from({ length: INVOICES }, (_, at) =>
    JSON.stringify({ reference: `R-${at}`, customer_id: (at % 500) + 1, currency: "EUR", amount: "9.90" }));
  for (let at = 0; at < lines.length; at += 5000) {
    await post(base, "/v1/imports", lines.slice(at, at + 5000).join("\n"));
  }
  const { page, close } = await open(browser, base);
  const run = await post(base, "/v1/runs");
  await page.goto(`${base}/console/runs/${run.id}`);
  await page.locator("#live").waitFor({ state: "visible" });
  const seen = new Set();
  await until("the run is watched to its end", async () => {
    seen.add(await page.locator("progress").getAttribute("value"));
    return (await page.locator("#run").innerText()).includes("The run has ended");
  }, RUN_MS_MAX);
  assert.ok(seen.size >= 3, `the page showed ${[...seen]} only`);
  await picture(page, "console-run");
  await page.goto(`${base}/console`);
  await picture(page, "console-overview");
  for (const currency of ["EUR", "SEK"]) await page.getByRole("img", { name: `${currency} charged by day` }).waitFor();
  assert.equal(await page.locator("#charged tbody tr").count(), 1 + DAYS + 1, "a row for each day and one for all");
  await picture(page, "console-charged", "#charged");
  await close();
  return run.id;
};

// A live page does not delay the end of the service.
const watchedStop = async (browser, base, child) => {
  const page = await browser.newPage();
  await page.goto(`${base}/console`);
  await page.locator("#live").waitFor({ state: "visible" });
  const began = Date.now();
  const ended = new Promise((done) => child.once("exit", done));
  child.kill("SIGTERM");
  assert.equal(await ended, 0);
  assert.ok(Date.now() - began < 5000, "an open stream delays the drain");
};

const main = async () => {
  const payments = await start("payments", { options: ["--database-url", "sqlite:payments.db"] });
  setClock(-DAYS * DAY_MS);
  const database = ["--database-url", DATABASE_URL, "--virtual-clock", "clock"];
  if (!DATABASE_URL.startsWith("sqlite:")) {
    execFileSync(join(BIN, "billing"), ["migrate", ...database], { stdio: ["ignore", "ignore", "inherit"], cwd: folder });
  }
  const { base, child } = await start("billing", {
    options: [...database, "--payment-provider-endpoint", payments.base],
  });
  const subscription = { reference: "S-1", customer_id: 1, currency: "EUR", amount: "12.50", anchor_day: 31, starts_on: "2030-01-31" };
  await post(base, "/v1/imports", JSON.stringify({ reference: HOSTILE, customer_id: 1, currency: "EUR", amount: "1" }));
  await post(base, "/v1/subscriptions", JSON.stringify(subscription));
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    await chargeByDay(base);
    const id = await watchRun(browser, base);
    const pages = ["/console", "/console/runs", `/console/runs/${id}`, "/console/attention", "/console/subscriptions",
      "/console/subscriptions/S%2D1", "/console/customers/1", "/console/customers/1?after=40", "/console/invoices/R%2D1",
      `/console/invoices/${encodeURIComponent(HOSTILE).replaceAll("'", "%27")}`];
    await everyPage(browser, base, pages);
    await withoutScripts(browser, base, pages);
    await login(browser);
    const { page, close } = await open(browser, base);
    for (const [path, name] of [["/console/invoices/R%2D1", "invoice"], [pages[5], "subscription"], [pages[6], "customer"]]) {
      await page.goto(base + path);
      await picture(page, `console-${name}`);
    }
    await close();
    assert.deepEqual(violations, [], "axe");
    await watchedStop(browser, base, child);
    console.log(`console: ${pages.length} pages, a run of ${INVOICES} watched, 6 pictures`);
  } finally {
    await browser.close();
  }
};

try {
  await main();
} finally {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
