// Package run carries Runs out: the Loop on the server starts, schedules, attests,
// promotes, retries and finishes them, and Workers execute the Jobs.
//
// What it promises:
//
//   - A Delivery becomes at most one Run, and an accepted one becomes a Run or is
//     found to be none, whatever dies in between.
//   - Every Run ends. What a dead worker or server leaves is taken over by another.
//   - Of each Job one attempt counts. What an older attempt reports is dropped.
//   - An image is used only when it was attested by the server, and the word of a
//     worker never says that it was: a worker changes Jobs, only the Loop changes
//     the record of a Run, and only that record says how a Job ended.
//   - Attestor and Promoter may be asked twice for the same; they are idempotent.
//
// All of it rests on compare-and-swap of two kinds of records: the Run's, which the
// Loop alone writes, and one for each Job, by which workers claim and report.
// Leases, hints and watches only save time and work. The decisions are in next,
// which is pure; everything else carries them out and may stop anywhere.
package run
