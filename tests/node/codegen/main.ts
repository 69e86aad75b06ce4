// A query whose types are those of the published schema.
import { graphql } from './gql';
import type { TypedDocumentString } from './gql/graphql';

const Albums = graphql(`
  query Albums($where: AlbumFilter, $limit: Int) {
    album(where: $where, sort: [title_desc], limit: $limit) {
      album_id
      title
      artist { name }
      track_aggregate { count }
    }
  }
`);

async function run<Result, Variables>(
  document: TypedDocumentString<Result, Variables>,
  variables: Variables,
): Promise<Result> {
  const response = await fetch(process.argv[2], {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query: document.toString(), variables }),
  });
  const { data, errors } = (await response.json()) as { data?: Result; errors?: unknown };
  if (!data) throw new Error(JSON.stringify(errors));
  return data;
}

async function main() {
  const { album } = await run(Albums, { where: { artist: { name: { _eq: 'AC/DC' } } }, limit: 1 });
  const [first] = album;
  const title: string = first.title;
  const artist: string | null | undefined = first.artist?.name;
  const tracks: number = first.track_aggregate[0].count;
  // @ts-expect-error: a column that is not there
  first.nothing;
  // @ts-expect-error: a limit is a number
  const wrong = () => run(Albums, { limit: 'x' });
  console.log(JSON.stringify({ title, artist, tracks, wrong: typeof wrong }));
}

void main();
