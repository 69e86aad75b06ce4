'use strict';
// A headless browser for scripts that open pages.

const { chromium } = require('playwright-core');

/** Runs `work` with a browser, which is closed at its end. */
async function withBrowser(work) {
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  try {
    await work(browser);
  } finally {
    await browser.close();
  }
}

module.exports = { withBrowser };
