/** A plan as tables, for the terminal and for a page. */
import { formatBytes, formatCount, formatSeconds, grouped } from '../toolkit/numbers';
import { lineChart, barChart, page, table, type Section } from '../toolkit/html';
import type { Explanation, KvDType, LoadPlan, Plan } from '../toolkit/plan';
import { perTokenStep } from '../toolkit/plan';
import { markdownTable, type Column, type Row, type TableData } from '../toolkit/table';

/** No cache grows so long: what memory does not limit, windows keep within it. */
const ENDLESS = 2 ** 31 - 1;

interface Part {
  heading: string;
  data: TableData;
  notes: string[];
}

export function dtypeText({ k, v }: KvDType): string {
  return k === v ? k : `${k}/${v}`;
}

function contextText(tokens: number): string {
  return tokens >= ENDLESS ? 'any' : grouped(tokens);
}

/** 8 KV heads, or how many layers have how many. */
function kvHeadsText(kvHeads: readonly number[]): string {
  const counts = [...new Set(kvHeads)];
  if (counts.length === 1) return `${counts[0]} KV`;
  const parts = counts.map(
    (count) => `${count} in ${kvHeads.filter((other) => other === count).length}`,
  );
  return `KV heads by layers (${parts.join(', ')})`;
}

function windowText(windows: readonly number[]): string {
  const windowed = windows.filter((window) => window !== Infinity);
  if (windowed.length === 0) return '';
  const sizes = [...new Set(windowed)].map((window) => grouped(window)).join(', ');
  return `; ${windowed.length} layers see a window of ${sizes} tokens`;
}

/** What the plan is about, line by line. */
function about({ model, source, parameters, weights, machine, batch, sharedPrefix }: Plan) {
  const { layers, heads, headDim, hiddenSize, ffn, layerKvHeads, layerWindows } = model;
  const experts = ffn.experts === null ? '' : ` x ${ffn.experts.count} experts`;
  const active = ffn.experts === null ? '' : `, ${formatCount(parameters.active)} of them active`;
  const shared = sharedPrefix > 0 ? `, ${grouped(sharedPrefix)} first tokens shared` : '';
  const speed =
    machine.bandwidth === null ? '' : `; ${(machine.bandwidth / 1e9).toFixed(1)} GB/s are read`;
  return [
    `${model.name} (${source}): ${layers} layers, ${heads} query heads and ${kvHeadsText(layerKvHeads)} of ${headDim}, ` +
      `hidden size ${grouped(hiddenSize)}, FFN ${grouped(ffn.width)}${experts}${windowText(layerWindows)}`,
    `${grouped(parameters.total)} parameters${active}; ${formatBytes(weights.bytes)} as ` +
      `${weights.dtype === 'file' ? 'stored' : weights.dtype} (${Number(weights.bitsPerParameter.toFixed(2))} bits each)`,
    `${batch} ${batch === 1 ? 'sequence' : 'sequences'}${shared}; ${formatBytes(machine.memory)} for weights and cache${speed}`,
  ];
}

const PART_NAMES = {
  embedding: 'embedding',
  positions: 'positions',
  query: 'Q',
  key: 'K',
  value: 'V',
  output: 'O',
  sinks: 'sink logits',
  ffn: 'FFN',
  router: 'router',
  norms: 'norms',
  head: 'output head',
} as const;

function parametersPart({ parameters, weights }: Plan): Part {
  const parts = Object.entries(PART_NAMES).map(([key, name]): Row => {
    const count = parameters[key as keyof typeof PART_NAMES];
    const bytes = (count * weights.bitsPerParameter) / 8;
    return { name, count, share: count / parameters.total, bytes };
  });
  const columns: Column[] = [
    { key: 'name', title: 'part' },
    { key: 'count', title: 'parameters', style: 'grouped' },
    { key: 'share', title: 'share', style: 'percent', decimals: 1 },
    { key: 'bytes', title: 'weights', style: 'bytes' },
  ];
  const rows = parts.filter(({ count }) => count !== 0);
  return { heading: 'Parameters', data: { columns, rows }, notes: [] };
}

const LOAD_COLUMNS: Column[] = [
  { key: 'context', title: 'context', style: 'grouped' },
  { key: 'dtype', title: 'K/V' },
  { key: 'bytesPerToken', title: 'bytes a token', style: 'grouped' },
  { key: 'textbookBytesPerToken', title: 'textbook', style: 'grouped' },
  { key: 'sequenceBytes', title: 'a sequence', style: 'bytes' },
  { key: 'batchBytes', title: 'the batch', style: 'bytes' },
  { key: 'heldBytes', title: 'in use', style: 'bytes' },
  { key: 'readBytes', title: 'read a step', style: 'bytes' },
  { key: 'floor', title: 'step at best' },
  { key: 'tokensPerSecond', title: 'tokens/s', decimals: 1 },
  { key: 'fits', title: 'fits' },
  { key: 'sequences', title: 'sequences that fit', style: 'grouped' },
  { key: 'longest', title: 'longest context' },
];

function loadRow(load: LoadPlan): Row {
  const { context, bytesPerToken, textbookBytesPerToken, sequenceBytes, batchBytes } = load;
  return {
    ...{ context, bytesPerToken, textbookBytesPerToken, sequenceBytes },
    dtype: dtypeText(load.dtype),
    batchBytes: load.batch === 1 ? null : batchBytes,
    heldBytes: load.heldBytes === batchBytes ? null : load.heldBytes,
    readBytes: load.readBytes,
    floor: load.floorSeconds === null ? null : formatSeconds(load.floorSeconds),
    tokensPerSecond: load.tokensPerSecond,
    fits: load.fits ? 'yes' : 'no',
    sequences: load.sequences,
    longest: contextText(load.longestContext),
  };
}

function loadsPart({ model, loads, sharedPrefix }: Plan): Part {
  const kinds = new Set(model.layerKvHeads);
  const notes = [
    ...(kinds.size === 1 ? [`K and V: ${perTokenStep(model)}`] : []),
    'Bytes are those of a KvCache: quantised keys with a scale and a minimum per dim and 64 tokens, values per 32 dims, the newest blocks in floats too, whole blocks; q4 is rotated, which takes no bytes. Textbook: numbers alone.',
    'Step at best: the weights and the keys and values that a step reads, over the bandwidth. Longest context: at this batch.',
    ...(sharedPrefix > 0
      ? [
          'The batch: what a cache allocates, for every sequence may part from the others. In use: the shared prefix once.',
        ]
      : []),
  ];
  return { heading: 'KV cache', data: { columns: LOAD_COLUMNS, rows: loads.map(loadRow) }, notes };
}

const GROUP_COLUMNS: Column[] = [
  { key: 'kvHeads', title: 'KV heads' },
  { key: 'group', title: 'group' },
  { key: 'kind', title: 'kind' },
  { key: 'bytesPerToken', title: 'bytes a token', style: 'grouped' },
  { key: 'cacheBytes', title: 'cache', style: 'bytes' },
  { key: 'parameters', title: 'parameters', style: 'grouped' },
  { key: 'floor', title: 'step at best' },
  { key: 'ffnWidth', title: 'FFN width', style: 'grouped' },
  { key: 'hiddenSize', title: 'hidden size', style: 'grouped' },
  { key: 'crossEntropy', title: 'cross-entropy' },
  { key: 'kl', title: 'KL' },
];

function groupRows({ groups }: Plan): Row[] {
  return groups.flatMap((group): Row[] => {
    const { kvHeads, kind, bytesPerToken, cacheBytes, parameters, buysBack, damage } = group;
    const row: Row = {
      ...{ kvHeads, bytesPerToken, cacheBytes, parameters },
      kind: group.current ? `${kind}, as it is` : kind,
      group: group.groupSize,
      floor: group.floorSeconds === null ? null : formatSeconds(group.floorSeconds),
      ffnWidth: Math.round(buysBack.ffnWidth),
      hiddenSize: Math.round(buysBack.hiddenSize),
    };
    if (damage.length === 0) return [{ ...row, crossEntropy: 'not measured' }];
    return damage.map(({ method, crossEntropy, kl }) => ({
      ...row,
      crossEntropy: `${crossEntropy.before.toFixed(3)} to ${crossEntropy.after.toFixed(3)}${method === null ? '' : ` (${method})`}`,
      kl: kl === null ? null : kl.toFixed(3),
    }));
  });
}

function groupsPart(planned: Plan): Part {
  const { loads, groups, damage } = planned;
  const [{ context, dtype }] = loads;
  const counts = groups.map(({ kvHeads }) => kvHeads);
  const others = damage.filter(({ kvHeads }) => !counts.includes(kvHeads));
  return {
    heading: 'KV heads',
    data: { columns: GROUP_COLUMNS, rows: groupRows(planned) },
    notes: [
      `Cache: ${dtypeText(dtype)}, ${grouped(context)} tokens, the batch. FFN width, hidden size: what would bring a layer back to the parameters of multi-head attention.`,
      ...others.map(
        ({ kvHeads, crossEntropy }) =>
          `${Number(kvHeads.toFixed(2))} KV heads a layer on average: cross-entropy ${crossEntropy.before.toFixed(3)} to ${crossEntropy.after.toFixed(3)}.`,
      ),
    ],
  };
}

function exitsPart({ exits, machine }: Plan): Part {
  const levels = exits[0].exits;
  const columns: Column[] = [
    { key: 'dtype', title: 'K/V' },
    ...levels.flatMap(({ level }) => [
      { key: `sequence${level}`, title: `a sequence leaves L${level} at` },
      { key: `layer${level}`, title: `a layer of it at` },
    ]),
  ];
  const rows = exits.map(({ dtype, exits: found }): Row => {
    const cells = found.flatMap(({ level, sequence, layer }) => [
      [`sequence${level}`, Number.isFinite(sequence) ? grouped(sequence) : 'never'],
      [`layer${level}`, Number.isFinite(layer) ? grouped(layer) : 'never'],
    ]);
    return { dtype: dtypeText(dtype), ...(Object.fromEntries(cells) as Row) };
  });
  const caches = machine.caches.filter(({ level }) => level > 1);
  const sizes = caches.map(
    ({ level, count, size }) => `L${level} ${count > 1 ? `${count} x ` : ''}${formatBytes(size)}`,
  );
  const notes = [
    `Tokens; this machine has ${sizes.join(', ')}. Layers are read one after the other, so it is a layer's share that a cache may keep within one call; from one token to the next the weights pass through it too.`,
  ];
  return { heading: "Processor's caches", data: { columns, rows }, notes };
}

function partsOf(planned: Plan): Part[] {
  const parts = [parametersPart(planned), loadsPart(planned), groupsPart(planned)];
  return planned.machine.caches.some(({ level }) => level > 1)
    ? [...parts, exitsPart(planned)]
    : parts;
}

export function explanationText({ claim, verdict, steps }: Explanation): string {
  return [`"${claim}"`, verdict, ...steps.map((step) => `  - ${step}`), ''].join('\n');
}

export function planText(planned: Plan): string {
  const parts = partsOf(planned).map(({ heading, data, notes }) =>
    [
      '',
      `## ${heading}`,
      '',
      ...markdownTable(data),
      ...(notes.length > 0 ? ['', ...notes] : []),
    ].join('\n'),
  );
  return `${[...about(planned), ...parts].join('\n')}\n`;
}

function charts({ loads, groups, machine, weights }: Plan): Section {
  const dtypes = [...new Set(loads.map(({ dtype }) => dtypeText(dtype)))];
  const series = dtypes.map((name) => ({
    name,
    points: loads
      .filter(({ dtype }) => dtypeText(dtype) === name)
      .map(({ context, batchBytes }) => [context, batchBytes] as const),
  }));
  const left = machine.memory - weights.bytes;
  const marks = left > 0 ? [{ name: 'memory beside the weights', y: left }] : [];
  const x = { label: 'context', unit: 'tokens', scale: 'log2' as const };
  const y = { label: 'cache of the batch', scale: 'log2' as const, format: formatBytes };
  const bars = groups.map(({ kvHeads, cacheBytes }) => ({
    label: `${kvHeads} KV heads`,
    value: cacheBytes,
  }));
  return {
    heading: 'Pictures',
    content: [
      lineChart({ title: 'Cache by context', x, y, series, marks }),
      barChart({
        title: 'Cache by KV heads',
        value: { label: 'cache of the batch', format: formatBytes },
        bars,
      }),
    ],
  };
}

export function planPage(planned: Plan, explanations: readonly Explanation[]): string {
  const parts = partsOf(planned).map(({ heading, data, notes }): Section => ({
    heading,
    content: table(data),
    notes,
  }));
  const told = explanations.map(({ claim, verdict, steps }): Section => ({
    heading: claim,
    text: [verdict, ...steps],
  }));
  return page(`gqa plan: ${planned.model.name}`, [...parts, charts(planned), ...told], {
    about: about(planned),
  });
}
