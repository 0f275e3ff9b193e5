/** The ONNX model of one node, read back by the wire format's rules. */
import { groupQueryAttentionModel } from '../../../bench/peers/onnx-model';
import { integer, message, text } from '../../../bench/peers/protobuf';

type Fields = Map<number, (number | Buffer)[]>;

/** Fields by number: varints as numbers, whatever has a length as its bytes. */
function parse(bytes: Buffer): Fields {
  const fields: Fields = new Map();
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    let value: number | Buffer = varint();
    if (tag % 8 === 2) {
      const length = value;
      value = bytes.subarray(at, at + length);
      expect(value).toHaveLength(length);
      at += length;
    } else {
      expect(tag % 8).toBe(0);
    }
    const field = Math.floor(tag / 8);
    fields.set(field, [...(fields.get(field) ?? []), value]);
  }
  return fields;
}

const inner = (fields: Fields, field: number) =>
  (fields.get(field) ?? []).map((bytes) => parse(bytes as Buffer));
const texts = (fields: Fields, field: number) => (fields.get(field) ?? []).map(String);

/** Name, element type and rank of the graph's inputs or outputs. */
function values(graph: Fields, field: number) {
  return inner(graph, field).map((value) => {
    const [tensor] = inner(inner(value, 2)[0], 1);
    const [shape] = inner(tensor, 2);
    return [texts(value, 1)[0], tensor.get(1)![0], (shape.get(1) ?? []).length];
  });
}

function readModel(bytes: Buffer) {
  const model = parse(bytes);
  const [graph] = inner(model, 7);
  const [node] = inner(graph, 1);
  const attributes = inner(node, 5).map((attribute) => [
    texts(attribute, 1)[0],
    attribute.get(20)![0] === 2 ? attribute.get(3)![0] : texts(attribute, 4)[0],
  ]);
  return { model, graph, node, attributes: Object.fromEntries(attributes) };
}

const SHAPE = { heads: 300, kvHeads: 8 };

test('varints of several bytes, nested messages', () => {
  expect(integer(1, 300)).toEqual(Buffer.from([0x08, 0xac, 0x02]));
  expect(message(2, [text(1, 'ab'), integer(3, 2 ** 40)])).toEqual(
    Buffer.from([0x12, 11, 0x0a, 2, 0x61, 0x62, 0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20]),
  );
});

test('float: seven inputs, no scales', () => {
  const bytes = groupQueryAttentionModel({ ...SHAPE, activations: 'float16', cache: 'float16' });
  const { model, graph, node, attributes } = readModel(bytes);
  expect(inner(model, 8).map((opset) => texts(opset, 1)[0])).toEqual(['', 'com.microsoft']);
  expect([texts(node, 4), texts(node, 7)]).toEqual([['GroupQueryAttention'], ['com.microsoft']]);
  expect(attributes).toEqual({ num_heads: 300, kv_num_heads: 8 });
  expect(texts(node, 1)).toEqual(values(graph, 11).map(([name]) => name));
  expect(texts(node, 2)).toEqual(['output', 'present_key', 'present_value']);
  expect(values(graph, 11)).toEqual([
    ['query', 10, 3],
    ['key', 10, 3],
    ['value', 10, 3],
    ['past_key', 10, 4],
    ['past_value', 10, 4],
    ['seqlens_k', 6, 1],
    ['total', 6, 1],
  ]);
});

test.each([
  ['int8', 3, 8],
  ['uint8', 2, 4],
] as const)('%s cache: scales in slots 12 and 13', (cache, element, bits) => {
  const bytes = groupQueryAttentionModel({ ...SHAPE, activations: 'float32', cache });
  const { graph, node, attributes } = readModel(bytes);
  expect(attributes).toMatchObject({
    k_quant_type: 'PER_CHANNEL',
    v_quant_type: 'PER_CHANNEL',
    kv_cache_bit_width: bits,
  });
  const slots = texts(node, 1);
  expect([slots.length, slots[12], slots[13]]).toEqual([14, 'k_scale', 'v_scale']);
  expect(slots.slice(7, 12)).toEqual(['', '', '', '', '']);
  const outputs = values(graph, 12);
  expect(outputs).toEqual([
    ['output', 1, 3],
    ['present_key', element, 4],
    ['present_value', element, 4],
  ]);
});
