/** The language model of a multimodal Gemma 3: the golden's checkpoint under the names that such folders have. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SafetensorsFile } from '../../lib/format/safetensors';
import {
  ARCHITECTURE_GOLDENS,
  measureArchitecture,
  readArchitectureGolden,
} from '../support/golden-architectures';
import { writeSafetensors } from '../support/reference-checkpoint';
import { ARCHITECTURE_LOGITS } from '../tolerances';

const GOLDEN = join(ARCHITECTURE_GOLDENS, 'gemma3');

test.each([
  ['older folders', 'language_model.model.'],
  ['newer folders', 'model.language_model.'],
])('%s', (_, root) => {
  const folder = mkdtempSync(join(tmpdir(), 'gqa-multimodal-'));
  const file = new SafetensorsFile(join(GOLDEN, 'model.safetensors'));
  try {
    const tensors = [...file.tensors].map(([name, { shape }]) => {
      const { data } = file.read(name);
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      return { name: name.replace(/^model\./, root), shape: [...shape], dtype: 'BF16', bytes };
    });
    writeFileSync(join(folder, 'model.safetensors'), writeSafetensors(tensors));
    const text = JSON.parse(readFileSync(join(GOLDEN, 'config.json'), 'utf8')) as object;
    const config = {
      architectures: ['Gemma3ForConditionalGeneration'],
      model_type: 'gemma3',
      text_config: { ...text, eos_token_id: undefined },
      vision_config: { model_type: 'siglip_vision_model', hidden_size: 8 },
      eos_token_id: [1, 106],
    };
    writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
    const { whole, greedy } = measureArchitecture('gemma3', folder);
    expect(whole).toBeLessThan(ARCHITECTURE_LOGITS);
    expect(greedy).toEqual(readArchitectureGolden('gemma3').greedy);
  } finally {
    file.close();
    rmSync(folder, { recursive: true });
  }
});
