/** An answer that is a page of a list. */
export type Page<T> = { data: { data: T[]; nextCursor: string | null } };

/**
 * Yields the items of all pages. list reads the page at a cursor, which is undefined for the
 * first one.
 *
 *     for await (const store of pages((cursor) => stoa.stores.list({ query: { cursor } }))) …
 */
export async function* pages<T>(list: (cursor: string | undefined) => Promise<Page<T>>): AsyncGenerator<T, void, undefined> {
  let cursor: string | undefined;
  do {
    const { data: page } = await list(cursor);
    if (page.nextCursor !== null && page.nextCursor === cursor) {
      throw new Error('The list does not end: a page names itself as the next one.');
    }
    yield* page.data;
    cursor = page.nextCursor ?? undefined;
  } while (cursor !== undefined);
}
