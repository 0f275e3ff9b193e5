/** The parts of node-gyp-build that native.ts uses: how prebuilds/<platform>-<arch>/ is read. */
declare module 'node-gyp-build' {
  interface Tags {
    file: string;
  }
  export function parseTags(file: string): Tags | undefined;
  export function matchTags(runtime: string, abi: string): (tags: Tags | undefined) => boolean;
  export function compareTags(runtime: string): (a: Tags, b: Tags) => number;
}
