import { backend } from '../../lib';
import { currentTarget } from './targets';

const target = currentTarget();

test(`the package runs on the target it was told to: ${target ?? 'its own choice'}`, () => {
  const info = backend();
  expect(info.reason).not.toBe('');
  expect(info.threads).toBeGreaterThanOrEqual(1);
  if (target === undefined) return;
  expect(info.isa).toBe(target);
  expect(info.kind).toBe(target === 'js' ? 'js' : 'native');
});
