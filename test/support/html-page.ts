/** A page as a browser would see it, judged strictly: one that is not well-formed XML throws. */
import { DOMParser, type Document, type Element } from '@xmldom/xmldom';

export type { Document, Element };

export function parsePage(html: string): Document {
  const onError = (level: string, message: string): void => {
    // What stands for characters that no document may hold is there on purpose.
    if (message.startsWith('Unicode replacement character')) return;
    throw new Error(`${level}: ${message}`);
  };
  // As XML: HTML's parser mends what is broken.
  return new DOMParser({ onError }).parseFromString(html, 'text/xml');
}

/** Elements of a name below another, or of the whole document. */
export function all(parent: Document | Element, name: string): Element[] {
  return Array.from(parent.getElementsByTagName(name));
}

export function textsOf(parent: Document | Element, name: string): string[] {
  return all(parent, name).map((element) => element.textContent ?? '');
}

/** Throws where the page would fetch or run anything. */
export function requireSelfContained(html: string): void {
  const found = /https?:|\bsrc=|\bhref=|<script|@import|url\(|\son\w+=/.exec(html);
  if (found !== null) throw new Error(`the page refers to something: ${found[0]}`);
}
