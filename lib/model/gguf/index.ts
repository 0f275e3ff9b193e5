/** GGUF's architectures by the name that general.architecture gives: a new one is a file here and a row. */
import { unsupported } from '../json-fields';
import type { GgufArchitecture } from './architecture';
import { falcon } from './falcon';
import { gemma2, gemma3 } from './gemma';
import { chatGlm, glm4 } from './glm';
import { gptBigCode } from './gpt-bigcode';
import { gptNeoX } from './gpt-neox';
import { gptOss } from './gpt-oss';
import { llama } from './llama';
import type { GgufMetadata } from './metadata';
import { phi3 } from './phi3';
import { qwen2, qwen3 } from './qwen';

export const GGUF_ARCHITECTURES: Readonly<Record<string, GgufArchitecture>> = {
  llama,
  qwen2,
  qwen3,
  gemma2,
  gemma3,
  phi3,
  falcon,
  starcoder: gptBigCode,
  gptneox: gptNeoX,
  chatglm: chatGlm,
  glm4,
  'gpt-oss': gptOss,
};

/** @throws GqaError UNSUPPORTED_MODEL */
export function ggufArchitecture({ architecture }: GgufMetadata): GgufArchitecture {
  if (Object.hasOwn(GGUF_ARCHITECTURES, architecture)) return GGUF_ARCHITECTURES[architecture];
  const known = Object.keys(GGUF_ARCHITECTURES).join(', ');
  throw unsupported('general.architecture', known, `'${architecture.slice(0, 80)}'`);
}
