'use strict';
// Verifies a message by standardwebhooks and reads it by cloudevents: node webhooks.js MESSAGE SECRET…, where MESSAGE is
// {headers, body}. Prints the type of the event for each secret.

const { HTTP } = require('cloudevents');
const { Webhook } = require('standardwebhooks');

const [message, ...secrets] = process.argv.slice(2);
const { headers, body } = JSON.parse(message);

for (const secret of secrets) {
  new Webhook(secret).verify(body, headers);
  const event = HTTP.toEvent({ headers, body });
  if (!event.validate()) {
    throw new Error('not an event');
  }
  let refused = false;
  try {
    new Webhook(secret).verify(`${body} `, headers);
  } catch {
    refused = true;
  }
  if (!refused) {
    throw new Error('another body has the same signature');
  }
  console.log(event.type);
}
