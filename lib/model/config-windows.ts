/** Which layers see a window only, as config.json says it. */
import { unsupported, type JsonFields } from './json-fields';
import type { ModelConfig } from './types';

/** Keys that a query of each layer sees, itself included; null for all up to its own. */
export type LayerWindows = readonly (number | null)[];

export interface WindowedConfig extends ModelConfig {
  layerWindows: LayerWindows;
}

/**
 * `sliding_window` in the layers that `layer_types` calls local; where a file has no such list, in those that the
 * architecture says.
 * @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL
 */
export function readLayerWindows(
  fields: JsonFields,
  layers: number,
  isLocal: (layer: number) => boolean,
): LayerWindows {
  const types = fields.raw('layer_types');
  if (types === undefined) {
    const window = fields.has('sliding_window') ? fields.integer('sliding_window') : null;
    return Array.from({ length: layers }, (_, layer) => (isLocal(layer) ? window : null));
  }
  if (!Array.isArray(types) || types.length !== layers) {
    throw fields.wrong('layer_types', `a list of ${layers} layer types`, types);
  }
  return types.map((type: unknown, layer) => {
    if (type === 'full_attention') return null;
    if (type === 'sliding_attention') return fields.integer('sliding_window');
    const received = String(type).slice(0, 80);
    throw unsupported(`layer_types[${layer}]`, 'full_attention, sliding_attention', received);
  });
}
