// Configuration of GraphQL Code Generator; SCHEMA is a file with the answer to the introspection query.
module.exports = {
  schema: process.env.SCHEMA,
  documents: ['main.ts'],
  generates: { 'gql/': { preset: 'client', config: { documentMode: 'string', defaultScalarType: 'unknown', scalars: { BigInt: 'number' } } } },
};
