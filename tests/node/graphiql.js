'use strict';
// Opens GraphiQL in a browser, completes a name and runs a query: node graphiql.js PAGE-THAT-LEADS-THERE PROJECT

const assert = require('node:assert');
const { withBrowser } = require('./browser.js');

const [start, project] = process.argv.slice(2);

withBrowser(async (browser) => {
  const page = await browser.newPage();
  const foreign = [];
  const complaints = [];
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.protocol !== 'data:' && url.origin !== new URL(start).origin) foreign.push(request.url());
  });
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.location().url.endsWith('/favicon.ico')) complaints.push(message.text());
  });

  await page.goto(start);
  await page.click(`a:text-is("${project}")`);
  const editor = page.locator('.graphiql-query-editor .CodeMirror');
  await editor.waitFor();
  // The names are known once the schema is there.
  await page.locator('.graphiql-spinner').waitFor({ state: 'detached' });
  await editor.click();
  await page.keyboard.press('Control+A');
  await page.keyboard.type('{ albu');
  await page.keyboard.press('Control+Space');
  const hint = page.locator('.CodeMirror-hints li').first();
  await hint.waitFor();
  assert.match(await hint.textContent(), /^album/);
  await page.keyboard.press('Enter');
  await page.keyboard.type('(limit: 1, sort: album_id_asc) { title');
  await page.keyboard.press('Control+Enter');
  const result = page.locator('.result-window');
  await result.filter({ hasText: 'For Those About To Rock' }).waitFor();

  assert.deepStrictEqual(foreign, [], 'nothing is loaded from elsewhere');
  assert.deepStrictEqual(complaints, []);
  console.log((await result.textContent()).length > 0 ? 'answered' : 'empty');
});
