'use strict';

const WELCOME = `# Ctrl-Space completes names, Ctrl-Enter runs the document.
#
# What is not open to everybody needs a token. Put it into the headers below,
#
#   { "authorization": "Bearer TOKEN" }
#
# and fetch the schema again (the arrows at the lower left): it shows what the token may reach.

{
  __typename
}
`;

const parameters = new URLSearchParams(location.search);
const page = React.createElement(GraphiQL, {
  fetcher: GraphiQL.createFetcher({ url: location.pathname }),
  query: parameters.get('query') ?? undefined,
  defaultQuery: WELCOME,
  defaultEditorToolsVisibility: 'headers',
  isHeadersEditorEnabled: true,
  shouldPersistHeaders: false,
});
ReactDOM.createRoot(document.getElementById('graphiql')).render(page);
