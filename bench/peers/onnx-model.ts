/**
 * An ONNX model of one node: com.microsoft GroupQueryAttention, the operator that onnxruntime runs language models with.
 * Shapes are left open; onnxruntime takes them from the tensors of a call.
 */
import { integer, message, text, type Field } from './protobuf';

/** Element types of onnx.proto's TensorProto.DataType. */
export const ELEMENT = { float32: 1, uint8: 2, int8: 3, int32: 6, float16: 10 } as const;
type Element = keyof typeof ELEMENT;

export interface GroupQueryAttentionModel {
  heads: number;
  kvHeads: number;
  /** Of query, key, value and output. */
  activations: 'float32' | 'float16';
  /** Of past and present: int8 and uint8 (two 4-bit values) have one scale a channel. */
  cache: 'float32' | 'float16' | 'int8' | 'uint8';
}

const IR_VERSION = 10;
const ONNX_OPSET = 21;
const ATTRIBUTE_INT = 2;
const ATTRIBUTE_STRING = 3;

/** Field numbers of onnx.proto. */
const MODEL = { irVersion: 1, graph: 7, opsetImport: 8 };
const OPSET = { domain: 1, version: 2 };
const GRAPH = { node: 1, name: 2, input: 11, output: 12 };
const NODE = { input: 1, output: 2, opType: 4, attribute: 5, domain: 7 };
const ATTRIBUTE = { name: 1, integer: 3, text: 4, type: 20 };
const VALUE_INFO = { name: 1, type: 2 };

function integerAttribute(name: string, value: number): Field {
  return message(NODE.attribute, [
    text(ATTRIBUTE.name, name),
    integer(ATTRIBUTE.integer, value),
    integer(ATTRIBUTE.type, ATTRIBUTE_INT),
  ]);
}

function textAttribute(name: string, value: string): Field {
  return message(NODE.attribute, [
    text(ATTRIBUTE.name, name),
    text(ATTRIBUTE.text, value),
    integer(ATTRIBUTE.type, ATTRIBUTE_STRING),
  ]);
}

/** ValueInfoProto{name, TypeProto{Tensor{elem_type, shape of `rank` unnamed dims}}}. */
function value(field: number, name: string, element: Element, rank: number): Field {
  const dims = Array.from({ length: rank }, () => message(1, []));
  const tensor = message(1, [integer(1, ELEMENT[element]), message(2, dims)]);
  return message(field, [text(VALUE_INFO.name, name), message(VALUE_INFO.type, [tensor])]);
}

/** The node's input slots in order; '' leaves an optional one out. */
const INPUTS = ['query', 'key', 'value', 'past_key', 'past_value', 'seqlens_k', 'total'];
const SCALES = ['k_scale', 'v_scale'];
/** cos_cache, sin_cache, position_ids, attention_bias and head_sink lie between the two. */
const SLOTS_BETWEEN = 5;
export const OUTPUTS = ['output', 'present_key', 'present_value'] as const;

export function groupQueryAttentionModel({
  heads,
  kvHeads,
  activations,
  cache,
}: GroupQueryAttentionModel): Buffer {
  const quantised = cache === 'int8' || cache === 'uint8';
  const slots = quantised
    ? [...INPUTS, ...Array.from({ length: SLOTS_BETWEEN }, () => ''), ...SCALES]
    : INPUTS;
  const node = message(GRAPH.node, [
    ...slots.map((name) => text(NODE.input, name)),
    ...OUTPUTS.map((name) => text(NODE.output, name)),
    text(NODE.opType, 'GroupQueryAttention'),
    integerAttribute('num_heads', heads),
    integerAttribute('kv_num_heads', kvHeads),
    ...(quantised
      ? [
          textAttribute('k_quant_type', 'PER_CHANNEL'),
          textAttribute('v_quant_type', 'PER_CHANNEL'),
          integerAttribute('kv_cache_bit_width', cache === 'int8' ? 8 : 4),
        ]
      : []),
    text(NODE.domain, 'com.microsoft'),
  ]);
  const graph = message(MODEL.graph, [
    node,
    text(GRAPH.name, 'attention'),
    ...['query', 'key', 'value'].map((name) => value(GRAPH.input, name, activations, 3)),
    ...['past_key', 'past_value'].map((name) => value(GRAPH.input, name, cache, 4)),
    value(GRAPH.input, 'seqlens_k', 'int32', 1),
    value(GRAPH.input, 'total', 'int32', 1),
    ...(quantised ? SCALES.map((name) => value(GRAPH.input, name, 'float32', 1)) : []),
    value(GRAPH.output, 'output', activations, 3),
    ...['present_key', 'present_value'].map((name) => value(GRAPH.output, name, cache, 4)),
  ]);
  return Buffer.concat([
    integer(MODEL.irVersion, IR_VERSION),
    graph,
    message(MODEL.opsetImport, [text(OPSET.domain, ''), integer(OPSET.version, ONNX_OPSET)]),
    message(MODEL.opsetImport, [text(OPSET.domain, 'com.microsoft'), integer(OPSET.version, 1)]),
  ]);
}
