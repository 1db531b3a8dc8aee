// Package queue keeps what the build half must not lose in NATS JetStream: the
// deliveries of webhooks, the state of Runs and Jobs, leases, hints for workers
// and logs. It is the only package that knows NATS.
//
// What it promises:
//
//   - A Delivery that was stored is on disk, and storing it again does nothing,
//     for as long as Runs are kept. This rests on the expected sequence of the
//     delivery's own subject, never on a window of message ids.
//   - A Table changes by compare-and-swap only. Two writers never both win.
//   - A lease ends by itself, counted by the server's clock, unless it is renewed.
//   - Hints may be lost, come twice or come late. They only say where work may be.
//   - Logs are bounded in size and age, and may lose their last moments when the
//     machine loses power.
//   - With the server away every call fails or waits for its context; when the
//     server is back, everything goes on without being made again.
//
// It refuses to listen anywhere but on loopback: a company that wants to reach its
// queue from other machines runs NATS itself and gives its URL.
package queue
