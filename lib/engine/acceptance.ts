/** How likely the next draft of one sequence is right, by what became of those before. */

/** Before anything is known: enough to try. */
const PRIOR = 0.7;
/** Weight of the newest draft. */
const LEARNING_RATE = 0.15;
/** How fast what is known of a sequence that drafts no more fades into trying again: within a few dozen tokens. */
const FADING = 0.01;

export class Acceptance {
  rate = PRIOR;

  /** Of so many drafts, those right: the first that was not says that the others could not be judged. */
  learn(drafted: number, accepted: number): void {
    for (let i = 0; i < accepted; i++) this.rate += LEARNING_RATE * (1 - this.rate);
    if (accepted < drafted) this.rate -= LEARNING_RATE * this.rate;
  }

  /** Nothing was drafted, because it would not have paid. */
  rest(): void {
    this.rate += FADING * (PRIOR - this.rate);
  }
}
