'use strict';
// Opens the live page in two windows and renames an album in one: node live_page.js ADDRESS TOKEN

const assert = require('node:assert');
const { withBrowser } = require('./browser.js');

const [start, token] = process.argv.slice(2);

withBrowser(async (browser) => {
  const complaints = [];
  const open = async (token) => {
    const page = await (await browser.newContext()).newPage();
    page.on('pageerror', (error) => complaints.push(String(error)));
    await page.goto(start);
    await page.click('a:text-is("live.html")');
    if (token) {
      await page.goto(`${page.url()}#${token}`);
      await page.reload();
    }
    await page.locator('#state', { hasText: /^live/ }).waitFor();
    return page;
  };
  const titles = (page) => page.locator('#albums input').evaluateAll((inputs) => inputs.map((input) => input.value));
  const [staff, anybody] = [await open(token), await open()];
  const before = await titles(anybody);
  assert.strictEqual(before.length, 20);
  assert.strictEqual(before[0], 'For Those About To Rock We Salute You');
  assert.deepStrictEqual(await titles(staff), before);

  const first = staff.locator('#albums input').first();
  await first.fill('Another name');
  await first.press('Enter');
  await anybody.waitForFunction(() => document.querySelector('#albums input').value === 'Another name');
  assert.deepStrictEqual((await titles(anybody)).slice(1), before.slice(1), 'in their order');

  // Without a token names are only read.
  assert.ok(await anybody.locator('#albums input').first().evaluate((input) => input.readOnly));
  assert.deepStrictEqual(complaints, []);
  console.log('shown');
});
