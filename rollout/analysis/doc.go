// Package analysis decides how a Rollout goes on.
//
// It is a core without I/O: Next takes what is known and what was seen, and
// returns what is known now and what to do, in order. It reads no clock and
// talks to no cluster, so that every path can be tried in a test.
//
// What it promises:
//   - A Bundle that failed is not applied again while it is the target,
//     whatever restarts and whichever write gets lost.
//   - A Verdict is recorded before traffic returns, and traffic returns also
//     when the record could not be written.
//   - Fail needs evidence that the version itself is at fault. Everything else
//     that is in the way is Inconclusive: it pauses, and keeps what runs.
//   - While a Rollout is not settled there is a time at which to look again.
//   - A canary gets no traffic that it has not the pods for, and a failed one
//     gets none that it has not had. A newer version starts from stable.
//   - A metric without data is no evidence, for nor against. A canary is called
//     worse than its baseline by mistake with a probability of at most alpha,
//     however often anyone looks (evariable.go; measured in BENCH.md).
//   - Somebody else's yes that is asked for (hook.go) is waited for; without it
//     a canary gets no more traffic, and nothing is held against it.
//
// Of its values the Rollout's API does not offer DynamicStableScale.
package analysis
