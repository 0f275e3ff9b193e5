/** Typed access to the metadata of a GGUF file, by keys without their architecture's name before them. */
import type { GgufFile } from '../../format/gguf';
import { JsonFields, unsupported } from '../json-fields';

export class GgufMetadata {
  /** general.architecture; empty where the file does not say. */
  readonly architecture: string;
  private readonly fields: JsonFields;

  /** @throws GqaError INVALID_FILE */
  constructor(readonly file: GgufFile) {
    this.fields = new JsonFields(file.path, Object.fromEntries(file.metadata));
    this.architecture = this.fields.text('general.architecture') ?? '';
  }

  /** 'block_count' to 'llama.block_count'. */
  key(name: string): string {
    return `${this.architecture}.${name}`;
  }

  has(name: string): boolean {
    return this.fields.has(this.key(name));
  }

  raw(name: string): unknown {
    return this.fields.raw(this.key(name));
  }

  integer(name: string, fallback?: number, min?: number): number {
    return this.fields.integer(this.key(name), fallback, min);
  }

  positive(name: string, fallback?: number): number {
    return this.fields.positive(this.key(name), fallback);
  }

  flag(name: string, fallback: boolean): boolean {
    return this.fields.flag(this.key(name), fallback);
  }

  text(name: string): string | null {
    return this.fields.text(this.key(name));
  }

  /** One number, or the same number for every layer. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
  uniform(name: string, fallback?: number): number {
    const value = this.raw(name);
    if (!Array.isArray(value)) return this.integer(name, fallback);
    if (value.length === 0 || value.some((entry) => entry !== value[0])) {
      throw unsupported(this.key(name), 'the same in every layer', 'different by layer');
    }
    return this.element(name, value[0]);
  }

  /** One number for all layers, or a list of one for each. @throws GqaError INVALID_FILE */
  perLayer(name: string, layers: number, fallback?: number): number | number[] {
    const value = this.raw(name);
    if (!Array.isArray(value)) return this.integer(name, fallback);
    if (value.length !== layers) throw this.wrong(name, `a list of ${layers} numbers`, value);
    return value.map((entry: unknown) => this.element(name, entry));
  }

  /** Ids of tokenizer.ggml's key, none where it is missing. */
  tokenIds(name: string): number[] {
    return this.fields.ids(`tokenizer.ggml.${name}`);
  }

  /** What makes the file a part of a model. @throws GqaError UNSUPPORTED_MODEL */
  checkSinglePart(): void {
    const parts = this.fields.integer('split.count', 1, 0);
    if (parts > 1) throw unsupported('split.count', '1: a model in one file', String(parts));
  }

  /** Row-major; undefined where there is no such tensor. */
  shapeOf(tensor: string): readonly number[] | undefined {
    return this.file.tensors.get(tensor)?.shape;
  }

  hasTensor(tensor: string): boolean {
    return this.file.tensors.has(tensor);
  }

  wrong(name: string, expected: string, value: unknown): Error {
    return this.fields.wrong(this.key(name), expected, value);
  }

  private element(name: string, value: unknown): number {
    const key = this.key(name);
    return new JsonFields(key, { [key]: value }).integer(key);
  }
}
