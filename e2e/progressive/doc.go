// Package progressive tells how versions come in step by step where pods are real: behind a gateway that counts requests, a
// Prometheus that reads it, and people who ask all the time.
package progressive
