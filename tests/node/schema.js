'use strict';
// Builds and validates the schema at a URL as graphql-js does: node schema.js URL [TOKEN]

const { assertValidSchema, buildClientSchema, getIntrospectionQuery } = require('graphql');

/** The answer to a document; throws where it is no JSON. */
async function ask(url, token, query, variables = {}) {
  const headers = { 'content-type': 'application/json', accept: 'application/json' };
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify({ query, variables }) });
  return response.json();
}

/** The schema that the bearer of the token is shown. */
async function introspect(url, token) {
  const options = { schemaDescription: true, inputValueDeprecation: true, specifiedByUrl: true, oneOf: true };
  const answer = await ask(url, token, getIntrospectionQuery({ ...options, directiveIsRepeatable: true }));
  if (answer.errors) throw new Error(JSON.stringify(answer.errors));
  const schema = buildClientSchema(answer.data);
  assertValidSchema(schema);
  return { schema, introspection: answer.data };
}

module.exports = { ask, introspect };

if (require.main === module) {
  introspect(process.argv[2], process.argv[3]).then(({ schema }) => {
    const fields = (type) => Object.keys(type?.getFields() ?? {});
    const types = Object.keys(schema.getTypeMap()).filter((name) => !name.startsWith('__'));
    const [query, mutation] = [schema.getQueryType(), schema.getMutationType()].map(fields);
    console.log(JSON.stringify({ types, query, mutation, subscription: fields(schema.getSubscriptionType()) }));
  });
}
