/**
 * Whose turn it is: users take turns, the one served longest ago first. A user who comes, or comes back, stands behind
 * all others, so that nobody waits for more turns than there are users.
 */
export class Turns {
  private clock = 0;
  private readonly users = new Map<string | undefined, { tasks: number; turn: number }>();

  /** One more task of this user. */
  join(user: string | undefined): void {
    const known = this.users.get(user);
    if (known === undefined) this.users.set(user, { tasks: 1, turn: ++this.clock });
    else known.tasks++;
  }

  /** One task less; a user without tasks is forgotten. */
  leave(user: string | undefined): void {
    const known = this.users.get(user);
    if (known !== undefined && --known.tasks === 0) this.users.delete(user);
  }

  /** This user was served. */
  take(user: string | undefined): void {
    const known = this.users.get(user);
    if (known !== undefined) known.turn = ++this.clock;
  }

  /** Smaller: longer ago. */
  of(user: string | undefined): number {
    return this.users.get(user)?.turn ?? 0;
  }
}
